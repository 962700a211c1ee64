"""A stream says something now and then while nothing happens, or a proxy would take it for dead."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest

from flotilla.core.limits import LIMITS
from flotilla.rpc import v1_pb2 as pb
from models.scripted import ScriptSettings
from tests.actors.cluster import REPLY, Cluster
from tests.serve.conftest import Gateway, _serving
from tests.serve.rpc_world import KEY, serving

STREAM = {"Accept": "text/event-stream"}
QUESTION = {"id": "m-1", "text": "What does the Silver card cost?"}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = msgspec.structs.replace(LIMITS, keep_open_every_s=0.05)
    monkeypatch.setattr("serve.streams.LIMITS", quick)


async def lines(answer: Any) -> AsyncGenerator[str]:
    async for line in answer.aiter_lines():
        if line:
            yield line


async def kept_open(answer: Any, times: int = 2) -> list[str]:
    """What came before the comment that is the last of so many."""
    seen: list[str] = []
    async for line in lines(answer):
        seen.append(line)
        if seen.count(":") == times:
            break
    assert answer.headers["content-type"].startswith("text/event-stream"), seen
    return [line for line in seen if line.startswith("data: ")]


async def test_an_answer_that_waits_for_its_agent(thinking: Gateway) -> None:
    session = await thinking.session()
    url = f"/v1/sessions/{session}/messages"
    async with thinking.desk.stream("POST", url, json=QUESTION, headers=STREAM) as answer:
        seen = await kept_open(answer)
    assert '"message.accepted"' in seen[0]


async def test_a_stream_that_nothing_comes_to(thinking: Gateway) -> None:
    session = await thinking.session()
    async with thinking.desk.stream("GET", f"/v1/sessions/{session}/stream") as answer:
        seen = await kept_open(answer)
    assert len(seen) == 1 and '"session.opened"' in seen[0]


async def test_an_answer_that_waits_while_another_one_is_spoken() -> None:
    talking = ScriptSettings(mode="replies", replies=(REPLY,), first_token_s=0.0, token_s=0.02)
    async with _serving(Cluster(script=talking)) as gateway:
        session = await gateway.session()
        url = f"/v1/sessions/{session}/messages"
        first = (await gateway.desk.post(url, json=QUESTION)).json()
        body = {"id": "m-2", "text": "And the Gold card?", "while_talking": "queue"}
        async with gateway.desk.stream("POST", url, json=body, headers=STREAM) as answer:
            seen = await kept_open(answer, times=1)
        second = json.loads(seen[0].removeprefix("data: "))
    assert second["type"] == "message.accepted" and second["turn"] != first["turn"] and len(seen) == 1


async def test_a_call_of_grpc_that_waits_for_its_agent(thinking: Gateway) -> None:
    session = await thinking.session()
    async with serving(thinking.app) as rpc:
        request = pb.SendRequest(session=session, id="m-1", text=QUESTION["text"])
        call = rpc.conversations.Send(request, metadata=KEY)
        seen: list[str] = []
        while seen.count("") < 2:
            seen.append((await call.read()).type)
        call.cancel()
    assert {type for type in seen if type} <= {"message.accepted", "reply.started"}
