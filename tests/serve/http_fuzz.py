"""Requests of every operation of the OpenAPI document, right and wrong, and what every answer must be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

BUSY = {503, 504}
PATIENCE_S = 20.0
# These answer for ever.
LASTING = {"/v1/sessions/{session}/stream", "/v1/models/{model}/events"}


def operations(document: dict[str, Any]) -> Iterator[Any]:
    schema = schemathesis.openapi.from_dict(document)
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]  # raises for one that is described wrongly
        if operation.path not in LASTING:
            yield operation


class Caller:
    """Calls operations with generated requests; `found` counts the answers by status."""

    def __init__(self, url: str, key: str, number: int = 0) -> None:
        self.url, self.number = url, number
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {key}"
        self.found: dict[int, int] = {}

    def fuzz(self, operation: Any, mode: GenerationMode, cases: int, **fixed: Any) -> list[str]:
        """What was wrong with the answers, each kind once."""
        wrong: dict[str, None] = {}

        @seed(self.number)
        @settings(
            max_examples=cases,
            database=None,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
                HealthCheck.filter_too_much,
            ],
        )
        @given(operation.as_strategy(generation_mode=mode, **fixed))
        def ask(case: Any) -> None:
            wrong.update(dict.fromkeys(self.ask(case)))

        with suppress(Unsatisfiable):  # an operation with nothing to send can't be sent anything wrong
            ask()
        return list(wrong)

    def ask(self, case: Any) -> list[str]:
        return self.wrong(case, self.call(case))

    def call(self, case: Any) -> Any:
        answer = case.call(base_url=self.url, session=self.session, timeout=PATIENCE_S)
        self.found[answer.status_code] = self.found.get(answer.status_code, 0) + 1
        return answer

    def wrong(self, case: Any, answer: Any) -> list[str]:
        said = f"{case.operation.label}: {answer.status_code}"
        try:
            case.validate_response(answer, checks=[status_code_conformance, content_type_conformance])
        except FailureGroup as error:
            return [f"{said} {str(error.exceptions[0])[:400]}"]
        return [f"{said}: {flaw}" for flaw in flaws(answer)]


def flaws(answer: Any) -> list[str]:
    """What is wrong with an answer, whatever was asked; `answer` is of schemathesis or of requests."""
    status, headers = answer.status_code, {name.lower(): value for name, value in answer.headers.items()}
    found: list[str] = []
    if status >= 500 and status not in BUSY:
        found.append(f"broke: {answer.text[:300]}")
    if status in BUSY and "retry-after" not in headers:
        found.append("no Retry-After")
    if "x-request-id" not in headers:
        found.append("no X-Request-Id")
    return [*found, *_misfits(status, _first(headers.get("content-type", "")), answer.text)]


def _first(value: Any) -> str:
    return str(value if isinstance(value, str) else value[0])


def _misfits(status: int, type: str, text: str) -> list[str]:
    """Of an error's document."""
    if status < 400:
        return []
    if type not in ("application/problem+json", "application/json"):
        return [f"an error of type {type!r}"]
    document = json.loads(text)
    if type == "application/json":
        return [] if document.get("error", {}).get("message") else [f"no error of OpenAI's: {text[:200]}"]
    told = document.get("status") == status and document.get("title") and document.get("type")
    return [] if told and document.get("detail") else [f"no problem document: {text[:200]}"]
