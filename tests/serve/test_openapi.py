"""The OpenAPI document is valid, and says of every operation what it answers besides its success."""

from __future__ import annotations

import re
from typing import Any

import schemathesis

from flotilla.core.ids import is_name
from serve.app import create_app
from tests.serve.conftest import SETTINGS, Gateway

DOCUMENT: dict[str, Any] = create_app(SETTINGS).openapi()


def test_the_document_is_valid() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()


def test_every_operation_declares_its_problems_and_when_to_come_back() -> None:
    for path, methods in DOCUMENT["paths"].items():
        type = "application/json" if path.startswith("/openai/v1") else "application/problem+json"
        for operation in methods.values():
            said = operation["responses"]
            assert "422" not in said and list(said["4XX"]["content"]) == [type]
            assert all("Retry-After" in said[status]["headers"] for status in ("503", "504"))


def test_the_id_of_a_message_is_described_as_it_is_checked() -> None:
    described = DOCUMENT["components"]["schemas"]["PostMessage"]["properties"]["id"]["pattern"]
    for id in ("m-1", "a" * 128, "", "a" * 129, "a b", "ü", "a\n"):
        assert bool(re.search(described.replace("$", r"\Z"), id)) == is_name(id), id


async def test_a_problem_is_as_it_is_described(gateway: Gateway) -> None:
    told = (await gateway.desk.get("/v1/sessions/none")).json()
    described = DOCUMENT["components"]["schemas"]["Problem"]
    assert set(described["required"]) <= set(told) <= set(described["properties"])


async def test_a_method_that_is_not_allowed_names_those_that_are(gateway: Gateway) -> None:
    answer = await gateway.desk.patch("/v1/sessions")
    assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")
    assert answer.headers["allow"] in ("GET", "POST")


async def test_what_is_no_host_is_no_error_of_ours(gateway: Gateway) -> None:
    answer = await gateway.desk.get("/nothing", headers={"Host": "["})
    assert answer.status_code == 404
