"""Calls that build on one another, as the links of the OpenAPI document chain them: opened, talked to, handed over,
closed and asked again, in any order. FLOTILLA_FUZZ_CASES makes it longer, FLOTILLA_FUZZ_SEED another one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from actors.serving.single import OneModel
from models.scripted import ScriptedModel
from tests.actors.cluster import FAST, Cluster
from tests.serve.conftest import _serving
from tests.serve.http_fuzz import Caller, operations
from tests.serve.test_openapi import DOCUMENT

CASES = int(os.environ.get("FLOTILLA_FUZZ_CASES", "25"))
SEED = int(os.environ.get("FLOTILLA_FUZZ_SEED", "0"))
STEPS = 8
SESSION, KEY = "/v1/sessions/{session}", "/v1/keys/{key}"
KEY_BODY = {"name": "chain"}


@pytest.fixture
def caller() -> Iterator[Caller]:
    """Of a gateway in another thread."""
    with start_blocking_portal() as portal:
        serving: Any = portal.wrap_async_context_manager(_serving(portal.call(_cluster)))
        with serving as gateway:
            gateway.app.state.doors.model = OneModel(ScriptedModel(FAST))
            made = Caller(f"http://{gateway.address}", "dev", SEED)
            yield made
            made.session.close()


async def _cluster() -> Cluster:
    return Cluster(script=FAST)


def linked(method: str, path: str, status: str) -> set[str]:
    links = DOCUMENT["paths"][path][method]["responses"][status]["links"]
    ids = {
        operation["operationId"]: f"{method.upper()} {path}"
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
    }
    return {ids[link["operationId"]] for link in links.values()}


def test_what_is_opened_is_linked_to_all_that_can_be_done_with_it() -> None:
    of_session = {
        f"{method.upper()} {path}"
        for path, operations in DOCUMENT["paths"].items()
        for method in operations
        if path.startswith(SESSION)
    }
    assert linked("post", "/v1/sessions", "201") == of_session
    assert linked("post", f"{SESSION}/messages", "202") == {f"GET {SESSION}/events", f"GET {SESSION}/stream"}
    assert linked("post", "/v1/keys", "201") == {f"GET {KEY}", f"DELETE {KEY}", f"POST {KEY}/rotate"}
    documents = "/v1/knowledge/{collection}/documents"
    assert linked("post", documents, "200") == {f"DELETE {documents}/{{document}}"}


@pytest.mark.parametrize(
    ("opener", "name", "body"), [("/v1/sessions", "session", {}), ("/v1/keys", "key", KEY_BODY)]
)
def test_calls_that_build_on_one_another_are_answered_as_the_document_says(
    caller: Caller, opener: str, name: str, body: dict[str, Any]
) -> None:
    """Schemathesis has a machine for this, which mostly begins anew: here each step is on what was opened."""
    wrong: dict[str, None] = {}
    taken: Counter[str] = Counter()
    follows = linked("post", opener, "201")
    following = [found for found in operations(DOCUMENT) if found.label in follows]

    @seed(SEED)
    @settings(max_examples=CASES, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.sampled_from(following), min_size=2, max_size=STEPS), st.data())
    def chain(steps: list[Any], data: st.DataObject) -> None:
        id = caller.session.post(caller.url + opener, json=body).json()["id"]
        for operation in steps:
            case = data.draw(operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
            case.path_parameters = {name: id}
            answer = caller.call(case)
            wrong.update(dict.fromkeys(caller.wrong(case, answer)))
            taken[operation.label] += answer.status_code < 300
        if name == "session":
            events = caller.session.get(f"{caller.url}{opener}/{id}/events").json()["events"]
            assert [event["seq"] for event in events] == list(range(1, len(events) + 1))

    chain()
    assert not wrong, "\n".join(wrong)
    assert len(+taken) > len(follows) / 2, taken
