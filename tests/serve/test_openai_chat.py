"""Chat completions, as the official client sees them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from flotilla.core.charges import cost_of
from flotilla.core.generation import ChatMessage, Usage
from tests.serve.conftest import TENANT_KEY
from tests.serve.openai_world import FAST, MADE_UP, PRICE, REPLY, TOKENS, VERSION, Served, ask, serving

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME: dict[str, Any] = {"type": "function", "function": {"name": "get_time"}}


class Card(BaseModel):
    name: str
    fee: float
    tags: list[str]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(FAST) as made:
        yield made


@pytest.fixture
async def made_up() -> AsyncIterator[Served]:
    async with serving(MADE_UP) as made:
        yield made


async def test_a_reply_names_its_version_and_what_it_took(served: Served) -> None:
    made = await served.client().chat.completions.with_raw_response.create(model="smollm2", messages=ask())
    reply = made.parse()
    (choice,) = reply.choices
    assert choice.message.content == REPLY and choice.message.role == "assistant"
    assert choice.finish_reason == "stop" and choice.logprobs is None and choice.message.tool_calls is None
    assert reply.model == reply.system_fingerprint == VERSION and reply.object == "chat.completion"
    assert (
        reply.usage and reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    )
    assert reply.usage.completion_tokens == TOKENS and reply.usage.prompt_tokens == 6
    assert made.headers["x-request-id"].startswith("req_") and made.headers["x-request-id"] in reply.id


async def test_the_client_that_blocks_gets_the_same(served: Served) -> None:
    def calls() -> tuple[str | None, str]:
        client = served.blocking()
        whole = client.chat.completions.create(model=VERSION, messages=ask())  # type: ignore[arg-type]
        stream = client.chat.completions.create(model=VERSION, messages=ask(), stream=True)  # type: ignore
        return whole.choices[0].message.content, "".join(c.choices[0].delta.content or "" for c in stream)

    assert await asyncio.to_thread(calls) == (REPLY, REPLY)


async def test_a_stream_begins_with_the_role_and_ends_with_the_reason_and_usage(served: Served) -> None:
    stream = await served.client().chat.completions.create(
        model="smollm2", messages=ask(), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    first, *middle, finish, last = chunks
    assert first.choices[0].delta.role == "assistant" and first.choices[0].delta.content == ""
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle) == REPLY and len(middle) > 5
    assert finish.choices[0].finish_reason == "stop" and not finish.choices[0].delta.content
    assert last.choices == [] and last.usage and last.usage.completion_tokens == TOKENS
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert {chunk.id for chunk in chunks} == {first.id}
    assert {chunk.model for chunk in chunks} == {VERSION} == {chunk.system_fingerprint for chunk in chunks}


async def test_a_stream_on_the_wire(served: Served) -> None:
    body = {"model": "smollm2", "messages": ask(), "stream": True}
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {TENANT_KEY}"}) as client:
        answer = await client.post(f"{served.url}/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-request-id"] and answer.headers["cache-control"] == "no-store"
    *events, done, nothing = answer.text.split("\n\n")
    assert done == "data: [DONE]" and nothing == ""
    assert all(event.startswith("data: {") for event in events)
    assert all("usage" not in json.loads(event[6:]) for event in events)


async def test_several_choices_come_with_an_index_each(made_up: Served) -> None:
    client = made_up.client()
    settings: dict[str, Any] = {"model": "smollm2", "messages": ask(), "n": 3, "seed": 5}
    whole = await client.chat.completions.create(**settings)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2] and len(set(texts)) == 3
    streamed = ["", "", ""]
    stream = await client.chat.completions.create(**settings, stream=True)
    async for chunk in stream:
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts
    assert whole.usage and whole.usage.prompt_tokens == 6


async def test_the_seed_decides_and_without_one_replies_differ(made_up: Served) -> None:
    async def text(**more: Any) -> str | None:
        made = await made_up.client().chat.completions.create(model="smollm2", messages=ask(), **more)
        return made.choices[0].message.content

    assert await text(seed=1) == await text(seed=1) != await text(seed=2)
    assert await text() != await text()
    assert await text(temperature=0) == await text(temperature=0)


async def test_settings_reach_the_engine(served: Served) -> None:
    await served.client().chat.completions.create(
        model="smollm2",
        messages=ask(),
        stop=["a", "b"],
        temperature=0.5,
        top_p=0.9,
        max_completion_tokens=7,
        seed=-1,
        user="ann",
    )
    (prompt,) = served.doors.model.prompts
    assert (prompt.temperature, prompt.top_p, prompt.tokens_max) == (0.5, 0.9, 7)
    assert prompt.stop == ("a", "b") and prompt.seed == 2**63 - 1 and prompt.model == VERSION
    assert (prompt.origin.tenant, prompt.origin.conversation, prompt.origin.agent) == (
        "demo",
        "ann",
        "openai",
    )


async def test_stop_and_length(served: Served) -> None:
    client = served.client()
    stopped = await client.chat.completions.create(model="smollm2", messages=ask(), stop="annual")
    assert stopped.choices[0].message.content == "The Silver card has an "
    assert stopped.choices[0].finish_reason == "stop"
    cut = await client.chat.completions.create(model="smollm2", messages=ask(), max_tokens=2)
    assert cut.choices[0].message.content == "The Silver" and cut.choices[0].finish_reason == "length"


async def test_messages_in_all_their_forms(served: Served) -> None:
    await served.client().chat.completions.create(
        model="smollm2",
        messages=[
            {
                "role": "developer",
                "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}],
            },
            {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "ann"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "user", "content": "Why?"},
        ],
    )
    assert served.doors.model.prompts[0].messages == (
        ChatMessage(role="system", text="Be kind."),
        ChatMessage(role="user", text="Hi"),
        ChatMessage(role="assistant", text="No."),
        ChatMessage(role="user", text="Why?"),
    )


async def test_a_growing_chat_stays_one_conversation(served: Served) -> None:
    client, chat = served.client(), ask("Hello")
    for text in ("And then?", "And now?"):
        made = await client.chat.completions.create(model="smollm2", messages=chat)  # type: ignore[arg-type]
        chat += [{"role": "assistant", "content": made.choices[0].message.content}, *ask(text)]
    await client.chat.completions.create(model="smollm2", messages=ask("Another"))  # type: ignore[arg-type]
    named = {"x-flotilla-conversation": "c-7"}
    await client.chat.completions.create(model="smollm2", messages=chat, extra_headers=named)  # type: ignore
    one, two, other, said = [prompt.origin.conversation for prompt in served.doors.model.prompts]
    assert one == two != other and said == "c-7"


async def test_logprobs_with_their_alternatives(served: Served) -> None:
    client = served.client()
    made = await client.chat.completions.create(
        model="smollm2", messages=ask(), logprobs=True, top_logprobs=3
    )
    content = made.choices[0].logprobs and made.choices[0].logprobs.content
    assert content and "".join(token.token for token in content) == REPLY
    assert all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in content)
    assert bytes(content[0].bytes or ()).decode() == content[0].token
    stream = await client.chat.completions.create(model="smollm2", messages=ask(), logprobs=True, stream=True)
    tokens = [
        t.token async for c in stream for o in c.choices if o.logprobs for t in o.logprobs.content or ()
    ]
    assert "".join(tokens) == REPLY


# -- structured


async def test_parse_gives_an_object_of_the_clients_own_type(made_up: Served) -> None:
    client = made_up.client()
    made = await client.chat.completions.parse(model="smollm2", messages=ask(), response_format=Card)
    assert isinstance(made.choices[0].message.parsed, Card)
    async with client.chat.completions.stream(
        model="smollm2", messages=ask(), response_format=Card, temperature=0
    ) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Card)
    schema = json.loads(made_up.doors.model.prompts[0].schema)
    assert set(schema["required"]) == {"name", "fee", "tags"}


async def test_json_object_is_an_object(made_up: Served) -> None:
    made = await made_up.client().chat.completions.create(
        model="smollm2", messages=ask(), response_format={"type": "json_object"}
    )
    assert isinstance(json.loads(made.choices[0].message.content or ""), dict)
    await made_up.client().chat.completions.create(
        model="smollm2", messages=ask(), response_format={"type": "text"}
    )
    assert made_up.doors.model.prompts[1].schema == ""


async def test_a_tool_is_called_and_its_result_goes_back_to_the_same_version(made_up: Served) -> None:
    client = made_up.client()
    made = await client.chat.completions.create(
        model="smollm2", messages=ask("How is the weather?"), tools=[WEATHER], tool_choice="required"
    )
    choice = made.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls or ()
    assert call.type == "function" and call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    assert made_up.doors.model.holding.counted() == {VERSION: 1}
    chat: list[Any] = [
        *ask("How is the weather?"),
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": "Rain."},
    ]
    answered = await client.chat.completions.create(
        model="smollm2", messages=chat, tools=[WEATHER], tool_choice="none"
    )
    assert answered.choices[0].message.content and answered.choices[0].finish_reason == "stop"
    first, second = made_up.doors.model.prompts
    assert second.messages[1].calls[0].name == "get_weather" and second.messages[2].answers == call.id
    assert not first.pinned and second.pinned and second.model == VERSION


async def test_results_for_a_version_that_is_gone_are_read_by_the_one_that_is_there(served: Served) -> None:
    call = {"id": "call_1~smollm2@0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chat: list[Any] = [
        *ask(),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "5"},
    ]
    made = await served.client().chat.completions.create(model="smollm2", messages=chat)
    assert made.model == VERSION and not served.doors.model.prompts[0].pinned
    await served.client().chat.completions.create(model=VERSION, messages=chat)
    assert served.doors.model.prompts[1].pinned  # asked for by its id


async def test_a_streamed_call_comes_in_pieces_that_the_client_joins(made_up: Served) -> None:
    named: Any = {"type": "function", "function": {"name": "get_time"}}
    async with made_up.client().chat.completions.stream(
        model="smollm2", messages=ask(), tools=[WEATHER, TIME], tool_choice=named
    ) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or ()
    assert call.function.name == "get_time" and json.loads(call.function.arguments) == {}
    assert final.choices[0].finish_reason == "tool_calls"


# -- what it costs


async def test_each_reply_is_charged_once(served: Served) -> None:
    client = served.client()
    await client.chat.completions.create(model="smollm2", messages=ask())  # type: ignore[arg-type]
    stream = await client.chat.completions.create(model=VERSION, messages=ask(), stream=True)  # type: ignore
    async for _ in stream:
        pass
    (spent,) = await served.doors.spent()
    assert spent.name == VERSION and spent.replies == 2
    assert (spent.prompt_tokens, spent.completion_tokens) == (12, 2 * TOKENS)
    assert (
        spent.cost
        == 2 * cost_of(Usage(prompt_tokens=6, completion_tokens=TOKENS), PRICE)
        == 2 * (6 + 3 * TOKENS)
    )
    assert [by.name for by in await served.doors.spent("source")] == ["openai"]


async def test_choices_share_their_prompt_on_the_bill(made_up: Served) -> None:
    made = await made_up.client().chat.completions.create(model="smollm2", messages=ask(), n=4)
    (spent,) = await made_up.doors.spent()
    assert made.usage and spent.replies == 1
    assert (spent.prompt_tokens, spent.completion_tokens) == (6, made.usage.completion_tokens)


# -- besides chat


async def test_plain_completions(served: Served) -> None:
    client = served.client()
    made = await client.completions.create(model="smollm2", prompt="Once upon", max_tokens=100, logprobs=2)
    (choice,) = made.choices
    assert choice.text == REPLY and choice.finish_reason == "stop" and made.object == "text_completion"
    assert choice.logprobs and choice.logprobs.text_offset and choice.logprobs.tokens
    offset = choice.logprobs.text_offset[3]
    assert REPLY[offset:].startswith(choice.logprobs.tokens[3])
    assert served.doors.model.prompts[0].raw == "Once upon" and not served.doors.model.prompts[0].messages
    assert (await client.completions.create(model="smollm2", prompt="x")).choices[0].finish_reason == "length"


async def test_plain_completions_of_several_prompts_stream(made_up: Served) -> None:
    client = made_up.client()
    settings: dict[str, Any] = {"model": "smollm2", "prompt": ["a", "b"], "n": 2, "seed": 3, "max_tokens": 60}
    whole = await client.completions.create(**settings)
    texts = [""] * 4
    stream = await client.completions.create(**settings, stream=True, stream_options={"include_usage": True})
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
        usage = chunk.usage
    assert texts == [choice.text for choice in whole.choices] and len(set(texts)) == 4
    assert whole.usage and usage and usage.prompt_tokens == 2 == whole.usage.prompt_tokens


async def test_a_prompt_of_tokens_is_refused_with_the_next_move(served: Served) -> None:
    from openai import BadRequestError

    with pytest.raises(BadRequestError, match="Send text") as refused:
        await served.client().completions.create(model="smollm2", prompt=[1, 2, 3])
    assert refused.value.param == "prompt"
