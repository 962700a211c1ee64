"""A reply outlives its replica, and not its reader."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from time import perf_counter
from typing import Any

import httpx2
import msgspec
import pytest

from flotilla.core.errors import Overloaded
from flotilla.core.generation import Generated, Piece, Prompt
from flotilla.core.limits import LIMITS
from models.scripted import ScriptedModel
from serve.openai_streaming import OPEN_AFTER_S
from tests.serve.conftest import TENANT_KEY
from tests.serve.openai_world import FAST, MADE_UP, REPLY, SLOW, TOKENS, Served, ask, lost, serving
from tests.timing import PATIENCE_S, until, within

CANCELLED_WITHIN_S = 0.05
CALL: dict[str, Any] = {"model": "smollm2", "messages": ask()}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "card",
        "schema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
}


@pytest.fixture
async def slow() -> AsyncIterator[Served]:
    async with serving(SLOW) as made:
        yield made


# -- over the death of replicas


async def test_a_stream_goes_on_where_its_replica_died(slow: Served) -> None:
    slow.doors.model.breaks = [(3, lost()), (2, lost()), (0, lost()), (1, Overloaded("Full."))]
    stream = await slow.client().chat.completions.create(
        **CALL, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == REPLY
    prompts = slow.doors.model.prompts
    assert len(prompts) == 5 and [prompt.said for prompt in prompts][:2] == [
        "",
        REPLY[: len(prompts[1].said)],
    ]
    usage = chunks[-1].usage
    assert usage and (usage.prompt_tokens, usage.completion_tokens) == (6, TOKENS)
    (spent,) = await slow.doors.spent()
    assert (spent.replies, spent.prompt_tokens, spent.completion_tokens) == (1, 6, TOKENS)


async def test_a_reply_that_is_waited_for_is_whole_all_the_same(slow: Served) -> None:
    slow.doors.model.breaks = [(5, lost())]
    made = await slow.client().chat.completions.create(**CALL)
    assert made.choices[0].message.content == REPLY


async def test_each_choice_goes_on_by_itself() -> None:
    async with serving(msgspec.structs.replace(MADE_UP, token_s=0.002, tick_s=0.001)) as served:
        whole = await served.client().chat.completions.create(**CALL, n=3, seed=4)
        served.doors.model.breaks = [(2, lost()), (4, lost()), (1, lost())]
        again = await served.client().chat.completions.create(**CALL, n=3, seed=4)
    assert [c.message.content for c in again.choices] == [c.message.content for c in whole.choices]


async def test_what_has_a_schema_is_made_again_unseen() -> None:
    async with serving(MADE_UP) as served:
        client = served.client()
        whole = await client.chat.completions.create(**CALL, response_format=SCHEMA, seed=1)  # type: ignore
        served.doors.model.breaks = [(1, lost()), (1, lost())]
        stream = await client.chat.completions.create(
            **CALL,
            response_format=SCHEMA,  # type: ignore[arg-type]
            seed=1,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content and "name" in json.loads(text)
    assert [prompt.said for prompt in served.doors.model.prompts] == [""] * 4
    assert chunks[-1].usage and whole.usage
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_words_that_came_where_tools_were_offered_are_gone_on_with(slow: Served) -> None:
    slow.doors.model.breaks = [(4, lost())]
    tool: Any = {"type": "function", "function": {"name": "zzz"}}
    stream = await slow.client().chat.completions.create(**CALL, tools=[tool], stream=True)
    text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
    assert text == REPLY
    first, second = slow.doors.model.prompts
    assert first.tools and not second.tools and REPLY.startswith(second.said) and second.said


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch, slow: Served) -> None:
    monkeypatch.setattr("serve.openai_generation.PATIENCE_S", 0.2)
    slow.doors.model.breaks = [(3, lost())] + [(0, lost())] * 100
    began = perf_counter()
    stream = await slow.client().chat.completions.create(**CALL, stream=True)
    with pytest.raises(Exception, match="broke"):
        async for _ in stream:
            pass
    assert 0.2 <= perf_counter() - began < LIMITS.openai_patience_s


# -- when the client goes away


async def test_a_stream_whose_reader_leaves_is_cancelled_at_once() -> None:
    async with serving(msgspec.structs.replace(SLOW, token_s=0.01)) as served:
        await within(CANCELLED_WITHIN_S, lambda: _leave(served, stream=True))


async def test_a_reply_whose_reader_leaves_is_cancelled_at_once() -> None:
    async with serving(msgspec.structs.replace(SLOW, first_token_s=600.0)) as served:
        await within(CANCELLED_WITHIN_S, lambda: _leave(served, stream=False))


async def test_a_stream_that_has_not_begun_is_cancelled_at_once() -> None:
    async with serving(msgspec.structs.replace(SLOW, first_token_s=600.0)) as served:
        await within(CANCELLED_WITHIN_S, lambda: _leave(served, stream=True, read=False, n=3))
        assert await served.doors.spent() == []


async def _leave(served: Served, *, stream: bool, read: bool | None = None, n: int = 1) -> float:
    """Seconds from the client's hanging up until the engine makes nothing any more."""
    head = f"Host: {served.address}\r\nAuthorization: Bearer {TENANT_KEY}\r\nContent-Type: application/json"
    body = json.dumps({**CALL, "stream": stream, "n": n})
    host, _, port = served.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    path = "/openai/v1/chat/completions"
    writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    if stream if read is None else read:
        await reader.readuntil(b'"content":"The')
    await until(lambda: served.model.unfinished >= n)
    left_at = perf_counter()
    writer.close()
    await served.until_idle()
    return perf_counter() - left_at


async def test_what_was_said_before_the_reader_left_is_charged() -> None:
    async with serving(msgspec.structs.replace(SLOW, token_s=0.01)) as served:
        await _leave(served, stream=True)
        async with asyncio.timeout(PATIENCE_S):
            while not (spent := await served.doors.spent()):
                await asyncio.sleep(0.001)
    assert spent[0].replies == 1 and 0 < spent[0].completion_tokens < TOKENS and spent[0].prompt_tokens > 0


class Standin(ScriptedModel):
    """Says with its first piece who it is, as the way to the models does where a fallback answers."""

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        said = False
        async with aclosing(super().generate(prompt)) as parts:
            async for part in parts:
                named = isinstance(part, Piece) and not said
                said = True
                yield msgspec.structs.replace(part, model="spare@1") if named else part


async def test_a_fallback_whose_reader_leaves_is_charged_as_what_it_is() -> None:
    async with serving(model=Standin(msgspec.structs.replace(SLOW, token_s=0.01))) as served:
        await _leave(served, stream=True)
        async with asyncio.timeout(PATIENCE_S):
            while not (spent := await served.doors.spent()):
                await asyncio.sleep(0.001)
    assert [one.name for one in spent] == ["spare@1"]


# -- while it takes long


async def test_a_long_thought_opens_the_stream_and_keeps_it_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.openai_streaming.OPEN_AFTER_S", 0.05)
    monkeypatch.setattr(
        "serve.openai_streaming.LIMITS", msgspec.structs.replace(_limits(), keep_open_every_s=0.05)
    )
    async with serving(msgspec.structs.replace(FAST, first_token_s=1.5)) as served:
        headers = {"Authorization": f"Bearer {TENANT_KEY}"}
        async with httpx2.AsyncClient(headers=headers) as client:
            body = {**CALL, "stream": True}
            answer = await client.post(f"{served.url}/chat/completions", json=body)
        stream = await served.client().chat.completions.create(**CALL, stream=True)
        text = "".join([c.choices[0].delta.content or "" async for c in stream])
    assert answer.text.count(": still at it\n\n") >= 2 and answer.text.endswith("data: [DONE]\n\n")
    assert text == REPLY and OPEN_AFTER_S == 5.0


def _limits() -> Any:
    from flotilla.core.limits import LIMITS

    return LIMITS
