"""Calls over HTTP: what is tried again and what isn't, and errors that say what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from flotilla.client import AsyncClient, ClientLimits, Patience
from flotilla.client.calls import Unreached
from flotilla.core.errors import (
    Conflict,
    FlotillaError,
    LimitReached,
    NotFound,
    Overloaded,
    Refused,
    Unavailable,
)
from flotilla.core.knowledge import Document, Hit, Ingested
from tests.client.server import serving
from tests.client.test_client_parts import Hands

Answer = tuple[int, dict[str, str], bytes]


class Script:
    """Answers call after call as the test says; the last answer for ever."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.heard: list[tuple[str, str, dict[str, str], Any]] = []

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        body = (await receive()).get("body", b"")
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        where = scope["raw_path"].decode() + (
            "?" + scope["query_string"].decode() if scope["query_string"] else ""
        )
        self.heard.append((scope["method"], where, headers, json.loads(body) if body else None))
        status, more, content = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if status == 0:
            await asyncio.Event().wait()
        kinds = [(name.encode(), value.encode()) for name, value in more.items()]
        await send({"type": "http.response.start", "status": status, "headers": kinds})
        await send({"type": "http.response.body", "body": content})


def ok(document: Any = None) -> Answer:
    return 200, {}, json.dumps(document).encode() if document is not None else b""


def problem(slug: str, status: int, **more: Any) -> Answer:
    document = {
        "type": f"https://flotilla.dev/problems/{slug}",
        "title": "T",
        "status": status,
        "detail": "D.",
    }
    return status, {"content-type": "application/problem+json"}, json.dumps(document | more).encode()


@asynccontextmanager
async def asked(*answers: Answer, patience: Patience | None = None, answer_s: float = 10.0):  # type: ignore[no-untyped-def]
    script, hands = Script(*answers), Hands()
    patience = patience or Patience(first_s=0.1, most_s=60.0, tries_max=5)
    async with serving(script) as url:  # type: ignore[arg-type]
        limits = ClientLimits(answer_s=answer_s)
        async with AsyncClient(url, patience=patience, limits=limits, clock=hands) as client:
            yield client, script, hands


async def test_what_was_shed_is_asked_again_when_the_fleet_says() -> None:
    shed = problem("overloaded", 503, retry_after_s=2.5)
    limited = (429, {"retry-after": "3"}, b"slow down")
    async with asked(shed, limited, ok({"turn": None})) as (client, script, hands):
        assert await client.sessions.at("s").interrupt() is None
        assert hands.slept == [2.5, 3.0] and len(script.heard) == 3


async def test_a_body_is_sent_again_as_it_was_under_the_same_key() -> None:
    async with asked(problem("unavailable", 503), ok({"id": "s_1"})) as (client, script, _):
        assert (await client.sessions.open("bank", metadata={"a": 1})).id == "s_1"
        first, second = script.heard
        assert first == second and first[2]["idempotency-key"]


async def test_what_may_have_been_done_is_not_done_again() -> None:
    async with asked(problem("unavailable", 503), ok({})) as (client, script, _):
        with pytest.raises(Unavailable):
            await client.sessions.at("s").interrupt()
        assert len(script.heard) == 1
        assert await client.models.steer("m", "promote") == {}


async def test_keys_are_made_once_and_named_in_paths() -> None:
    async with asked(problem("unavailable", 503), ok({"id": "k/1"})) as (client, script, _):
        with pytest.raises(Unavailable):
            await client.keys.create("laptop", scopes=["sessions:write"], expires_in_s=60)
        assert await client.keys.rotate("k/1", tenant="bank") == {"id": "k/1"}
        await client.keys.revoke("k/1")
        body = {"name": "laptop", "scopes": ["sessions:write"], "limits": {}, "expires_in_s": 60}
        assert [(method, where, sent) for method, where, _, sent in script.heard] == [
            ("POST", "/v1/keys", body),
            ("POST", "/v1/keys/k%2F1/rotate?tenant=bank", {}),
            ("DELETE", "/v1/keys/k%2F1", None),
        ]


async def test_problems_become_the_errors_that_they_were() -> None:
    async with asked(problem("conflict", 409, field="id", next="Use another id.")) as (client, _, _):
        with pytest.raises(Conflict) as conflict:
            await client.call("POST", "/v1/sessions", {})
        assert (conflict.value.field, conflict.value.next) == ("id", "Use another id.")
    async with asked(problem("not-found", 404)) as (client, _, _):
        with pytest.raises(NotFound):
            await client.knowledge.remove("bank", "blue card/1")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(502, Unavailable), (503, Unavailable), (504, Unavailable), (429, LimitReached), (500, FlotillaError)],
)
async def test_what_a_proxy_says_has_a_kind_too(status: int, kind: type[FlotillaError]) -> None:
    async with asked((status, {}, b"<html>sorry"), patience=Patience(tries_max=1)) as (client, _, _):
        with pytest.raises(kind) as error:
            await client.sessions.list()
        assert type(error.value) is kind and str(status) in error.value.detail


async def test_an_answer_that_is_no_json_is_an_error() -> None:
    async with asked((200, {}, b"<html>hello")) as (client, _, _):
        with pytest.raises(FlotillaError) as error:
            await client.models.list()
        assert error.value.next


async def test_a_time_out_is_named() -> None:
    async with asked((0, {}, b""), patience=Patience(tries_max=1), answer_s=0.05) as (client, _, _):
        with pytest.raises(Unavailable) as late:
            await client.models.show("smollm2")
        assert late.value.detail == "GET /v1/models/smollm2 had no answer in 0.05 s."


async def test_where_nobody_listens_the_address_is_named_and_all_can_be_tried_again() -> None:
    async with serving(Script(ok())) as url:  # type: ignore[arg-type]
        pass
    hands = Hands()
    async with AsyncClient(url, patience=Patience(tries_max=3), clock=hands) as client:
        with pytest.raises(Unreached) as gone:
            await client.sessions.at("s").interrupt()  # which was never sent
        assert url in gone.value.detail and "make up" in str(gone.value) and len(hands.slept) == 2
        with pytest.raises(Unreached):
            await client.ready()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Refused) as refused:
        AsyncClient(url)
    assert refused.value.field == "url"


async def test_what_json_has_not_is_refused_before_it_is_sent() -> None:
    async with asked(ok({})) as (client, script, _):
        with pytest.raises(Refused):
            await client.sessions.open(metadata={"x": object()})
        with pytest.raises(Refused):
            await client.sessions.at("s").post("\ud800")
        assert script.heard == []


async def test_readiness_is_told_good_or_bad() -> None:
    said = {"status": "unavailable", "dependencies": {"valkey": "down"}}
    async with asked((503, {}, json.dumps(said).encode())) as (client, script, _):
        assert await client.ready() == said and len(script.heard) == 1


async def test_knowledge_is_typed_and_names_are_quoted() -> None:
    hit = {
        "passage": {"id": "a#0", "document": "a", "title": "A", "text": "t"},
        "score": 1.0,
        "similarity": 0.5,
    }
    done = {"added": 1, "changed": 0, "unchanged": 0, "passages": 2}
    async with asked(ok({"hits": [hit]}), ok(done), ok()) as (client, script, _):
        found = await client.knowledge.search("my docs", "gold", limit=3)
        assert isinstance(found[0], Hit) and found[0].passage.id == "a#0"
        document = Document(id="a/b", title="A", text="t")
        assert await client.knowledge.add("my docs", [document]) == Ingested(added=1, passages=2)
        await client.knowledge.remove("my docs", "a/b")
        assert [(method, where) for method, where, _, _ in script.heard] == [
            ("POST", "/v1/knowledge/my%20docs/search"),
            ("POST", "/v1/knowledge/my%20docs/documents"),
            ("DELETE", "/v1/knowledge/my%20docs/documents/a%2Fb"),
        ]
        assert script.heard[1][3] == {"documents": [{"id": "a/b", "title": "A", "text": "t"}]}


async def test_a_model_is_watched_over_broken_connections() -> None:
    def sse(*events: dict[str, Any]) -> Answer:
        return (
            200,
            {"content-type": "text/event-stream"},
            b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events),
        )

    begun = {"seq": 1, "type": "swap.begun", "at": "x", "data": {}}
    figures = {"seq": 1, "type": "swap.figures", "data": {"n": 1}}
    ended = {"seq": 2, "type": "swap.ended", "at": "x", "data": {}}
    async with asked(sse(begun, figures), sse(begun, ended)) as (client, script, _):
        watching = client.models.watch("smollm2")
        assert [(await anext(watching)).type for _ in range(3)] == [
            "swap.begun",
            "swap.figures",
            "swap.ended",
        ]
        await watching.aclose()
        assert [headers["last-event-id"] for _, _, headers, _ in script.heard] == ["0", "1"]


async def test_overload_is_not_the_same_as_being_over_a_limit() -> None:
    async with asked(problem("overloaded", 503), patience=Patience(tries_max=1)) as (client, _, _):
        with pytest.raises(Overloaded):
            await client.sessions.open()
