"""What an engine can do beside making text: each a function that takes an engine, for whoever tests one."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from flotilla.core.errors import AdapterMissing, Misconfigured, Refused
from flotilla.core.generation import ChatMessage, Finished, Generated, Piece, Prompt, ToolCall, ToolSpec
from flotilla.core.ports import Engine

SCHEMA = {
    "type": "object",
    "properties": {
        "product": {"enum": ["savings", "card", "loan"]},
        "urgent": {"type": "boolean"},
        "tags": {"type": "array", "items": {"enum": ["fee", "rate"]}, "maxItems": 2},
    },
    "required": ["product", "urgent", "tags"],
    "additionalProperties": False,
}
FEE = ToolSpec(
    name="fee",
    description="The fee of a transfer.",
    parameters=json.dumps(
        {
            "type": "object",
            "properties": {"kind": {"$ref": "#/$defs/kind"}},
            "required": ["kind"],
            "additionalProperties": False,
            "$defs": {"kind": {"enum": ["wire", "card"]}},
        }
    ),
)
NOW = ToolSpec(name="now", parameters='{"type":"object","properties":{},"additionalProperties":false}')
NO_SCHEMAS = ("{", "[1]", '"a string"', '{"a":' * 3000 + "1" + "}" * 3000)


def ask(text: str, **settings: Any) -> Prompt:
    return Prompt(messages=(ChatMessage(role="user", text=text),), **settings)


async def run(engine: Engine, prompt: Prompt) -> list[Generated]:
    return [generated async for generated in engine.generate(prompt)]


def text_of(generated: Sequence[Generated]) -> str:
    return "".join(g.text for g in generated if isinstance(g, Piece))


def end_of(generated: Sequence[Generated]) -> Finished:
    assert isinstance(generated[-1], Finished)
    return generated[-1]


async def said_by(engine: Engine, prompt: Prompt) -> str:
    return text_of(await run(engine, prompt))


async def fits_a_schema(engine: Engine) -> None:
    for temperature in (0.0, 1.0):
        prompt = ask("I lost my card!", schema=json.dumps(SCHEMA), tokens_max=100, temperature=temperature)
        out = await run(engine, prompt)
        jsonschema.validate(json.loads(text_of(out)), SCHEMA)
        assert end_of(out).reason == "stop"


async def refuses_what_is_no_schema(engine: Engine) -> None:
    for schema in NO_SCHEMAS:
        with pytest.raises(Refused) as refused:
            await run(engine, ask("Hello", schema=schema))
        assert (refused.value.field, bool(refused.value.next)) == ("schema", True)
    await engine.ping()


async def calls_the_tool_that_it_must(engine: Engine) -> None:
    for choice, names in (("required", {"fee", "now"}), ("fee", {"fee"}), ("now", {"now"})):
        prompt = ask("What is the fee?", tools=(FEE, NOW), tool_choice=choice, tokens_max=100)
        out = await run(engine, prompt)
        (call,) = end_of(out).calls
        assert (end_of(out).reason, text_of(out)) == ("tools", "")
        assert call.name in names
        assert call.id
        specs = {tool.name: tool for tool in (FEE, NOW)}
        jsonschema.validate(json.loads(call.arguments), json.loads(specs[call.name].parameters))


async def calls_none_that_it_may_not(engine: Engine) -> None:
    out = await run(engine, ask("What is the fee?", tools=(FEE,), tool_choice="none", tokens_max=10))
    assert (end_of(out).calls, bool(text_of(out))) == ((), True)


async def refuses_a_choice_that_is_no_tool(engine: Engine) -> None:
    with pytest.raises(Refused) as refused:
        await run(engine, ask("What is the fee?", tools=(FEE,), tool_choice="weather"))
    assert refused.value.field == "tool_choice"


async def goes_on_from_the_answer_of_a_tool(engine: Engine) -> None:
    """The call and its answer are part of the prompt: they cost tokens."""
    asked = ChatMessage(role="user", text="What is the fee?")
    call = ToolCall(id="call_1", name="fee", arguments='{"kind": "wire"}')
    called = ChatMessage(role="assistant", text="", calls=(call,))
    answered = ChatMessage(role="tool", text="It is 25 dollars, and 45 abroad.", answers="call_1")
    out = await run(engine, Prompt(messages=(asked, called, answered), tools=(FEE,), tokens_max=20))
    before = await run(engine, Prompt(messages=(asked,), tools=(FEE,), tokens_max=20))
    assert end_of(out).usage.prompt_tokens > end_of(before).usage.prompt_tokens
    assert end_of(out).usage.completion_tokens > 0


async def goes_on_from_raw_text(engine: Engine) -> None:
    first = await run(engine, Prompt(raw="The bank opens at", tokens_max=8))
    assert text_of(first)
    assert end_of(first).usage.prompt_tokens < 10  # no template around it
    assert text_of(await run(engine, Prompt(raw="Once upon a time", tokens_max=8))) != text_of(first)


async def reports_logprobs(engine: Engine) -> None:
    out = await run(engine, ask("Hello", tokens_max=6, logprobs=3))
    pieces = [g for g in out if isinstance(g, Piece)]
    tokens = [token for piece in pieces for token in piece.logprobs]
    assert len(tokens) == sum(piece.tokens for piece in pieces) > 0
    assert all(token.logprob <= 0 and math.isfinite(token.logprob) for token in tokens)
    assert all(
        3 <= len(token.top) <= 4 and token.top[0].logprob == max(t.logprob for t in token.top)
        for token in tokens
    )
    silent = await run(engine, ask("Hello", tokens_max=6))
    assert not any(piece.logprobs for piece in silent if isinstance(piece, Piece))


async def says_what_it_is_busy_with(engine: Engine) -> None:
    async with aclosing(engine.generate(ask("Write a long story.", tokens_max=200))) as stream:
        await anext(stream)
        load = engine.load()
        assert (load.running + load.waiting, load.queued_tokens) == (1, 0)
        assert load.first_token_ms > 0
        assert 0 <= load.cache_used <= 1
    load = engine.load()
    assert (load.running, load.waiting, load.queued_tokens) == (0, 0, 0)


async def serves_adapters(engine: Engine, folders: Sequence[Path]) -> None:
    """`engine` has places for two, `folders` are three."""
    prompt = ask("Hello", tokens_max=20)
    base = await said_by(engine, prompt)
    for id, folder in zip("ab", folders, strict=False):
        await engine.load_adapter(id, str(folder))
        await engine.load_adapter(id, str(folder))
    assert set(engine.load().adapters) == {"a", "b"}
    texts = [await said_by(engine, adapted(prompt, id)) for id in ("a", "b", "a")]
    assert texts[0] == texts[2]
    assert len({base, *texts}) == 3
    await engine.load_adapter("c", str(folders[2]))  # "b" was used longest ago
    assert set(engine.load().adapters) == {"a", "c"}
    with pytest.raises(AdapterMissing):
        await run(engine, adapted(prompt, "b"))
    for id in ("a", "c", "nobody"):
        await engine.unload_adapter(id)
    assert engine.load().adapters == ()
    assert await said_by(engine, prompt) == base


def adapted(prompt: Prompt, id: str) -> Prompt:
    return Prompt(messages=prompt.messages, tokens_max=prompt.tokens_max, adapter=id)


async def refuses_an_adapter_that_is_none(engine: Engine, folder: Path) -> None:
    with pytest.raises(Misconfigured) as refused:
        await engine.load_adapter("none", str(folder))
    assert refused.value.field == "adapter"
    assert "none" not in engine.load().adapters
    await engine.ping()


async def takes_other_weights(engine: Engine, folder: Path, back: Path) -> None:
    prompt, name = ask("Hello", tokens_max=20), engine.name
    before = await said_by(engine, prompt)
    await engine.reload(str(folder), "another@2")
    assert engine.name == "another@2"
    assert await said_by(engine, prompt) != before
    await engine.reload(str(back), name)
    out = await run(engine, prompt)
    assert (text_of(out), engine.name) == (before, name)
    assert end_of(out).usage.cached_tokens == 0


async def keeps_its_weights(engine: Engine, folder: Path) -> None:
    """`folder` can't be loaded."""
    prompt, name = ask("Hello", tokens_max=20), engine.name
    before = await said_by(engine, prompt)
    with pytest.raises(Misconfigured) as refused:
        await engine.reload(str(folder), "another@2")
    assert refused.value.field == "source"
    assert (await said_by(engine, prompt), engine.name) == (before, name)


async def ends_all_when_cancelled(engine: Engine, number: int) -> None:
    """The readers of half of them are cancelled, the others get their whole replies."""
    tasks = [asyncio.create_task(run(engine, ask(f"Count to {n}", tokens_max=30))) for n in range(number)]
    while engine.load().running == 0:
        await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended[::2])
    assert all(isinstance(end, list) and isinstance(end[-1], Finished) for end in ended[1::2])
    load = engine.load()
    assert (load.running, load.waiting) == (0, 0)
