"""A reply over the death of its replicas."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.serving.going_on import PLANS_READ_S, going_on
from flotilla.core.clock import SystemClock
from flotilla.core.errors import FlotillaError, NotFound, Refused, Unavailable
from flotilla.core.generation import ChatMessage, Finished, Generated, Piece, Prompt, ToolSpec
from models.scripted import ScriptedModel, ScriptSettings, tokens_of

SCRIPT = ScriptSettings(first_token_s=0.0, token_s=0.0, tokens_median=12)
SCHEMA = '{"type":"object","properties":{"name":{"type":"string"}},"required":["name"]}'
TOOL = ToolSpec(
    name="look", parameters='{"type":"object","properties":{"at":{"type":"string"}},"required":["at"]}'
)


class Clock(SystemClock):
    """Nobody waits here; time goes on by what would have been slept."""

    def __init__(self) -> None:
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


class Dying:
    """Its first generations break off after so many pieces; -1 lets one end without a word of it."""

    name = "dying"

    def __init__(self, *deaths: int, error: Exception | None = None) -> None:
        self.model = ScriptedModel(SCRIPT)
        self.deaths = list(deaths)
        self.error = error or Unavailable("The link broke.", retry_after_s=0.5)
        self.prompts: list[Prompt] = []

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        self.prompts.append(prompt)
        left = self.deaths.pop(0) if self.deaths else None
        async with aclosing(self.model.generate(prompt)) as parts:
            async for part in parts:
                ends = isinstance(part, Finished)
                if left == -1 and ends:
                    return
                if left == 0 or (left is not None and ends):
                    raise self.error
                left = left - 1 if left and left > 0 else left
                yield part

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


def prompt(**more: Any) -> Prompt:
    return Prompt(messages=(ChatMessage(role="user", text="Tell me."),), **more)


async def run(model: Any, asked: Prompt, patience_s: float = 60.0) -> list[Generated]:
    return [part async for part in going_on(model, asked, clock=Clock(), patience_s=patience_s)]


def text_of(parts: list[Generated]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Piece))


def end_of(parts: list[Generated]) -> Finished:
    (end,) = [part for part in parts if isinstance(part, Finished)]
    assert parts[-1] is end
    return end


@settings(max_examples=60)
@given(deaths=st.lists(st.integers(0, 6), max_size=6), seed=st.integers(0, 99), cut=st.integers(0, 9))
async def test_whenever_its_replicas_die_the_reply_is_the_same(
    deaths: list[int], seed: int, cut: int
) -> None:
    asked = prompt(seed=seed, temperature=1.0)
    whole = await run(Dying(), asked)
    said = "".join(tokens_of(text_of(whole))[:cut])
    begun = prompt(seed=seed, temperature=1.0, said=said)
    alone = await run(Dying(), begun)
    parts = await run(Dying(*deaths), begun)
    assert said + text_of(parts) == text_of(whole)
    assert end_of(parts).usage == end_of(alone).usage and end_of(parts).reason == end_of(alone).reason


@pytest.mark.parametrize(
    "more",
    [
        {"schema": SCHEMA},
        {"tools": (TOOL,), "tool_choice": "required"},
        {"tools": (TOOL,), "tool_choice": "look"},
    ],
)
async def test_what_must_be_whole_is_made_again_and_nothing_of_it_is_seen_before(more: dict) -> None:
    whole, model = await run(Dying(), prompt(**more)), Dying(1, 0, 1)
    parts: list[Generated] = []
    async for part in going_on(model, prompt(**more), clock=Clock(), patience_s=60.0):
        assert len(model.prompts) == 4, "a piece of a reply that broke off was seen"
        parts.append(part)
    assert text_of(parts) == text_of(whole) and end_of(parts).calls == end_of(whole).calls
    assert end_of(parts).usage == end_of(whole).usage
    assert all(asked == model.prompts[0] for asked in model.prompts)


async def test_patience_counts_from_the_last_word() -> None:
    model = Dying(*[1, 0, 0, 0] * 3)
    assert end_of(await run(model, prompt(), patience_s=0.5))
    with pytest.raises(Unavailable):
        await run(Dying(*[1] + [0] * 50), prompt(), patience_s=0.5)


async def test_what_does_not_pass_is_raised_at_once() -> None:
    for error in (Refused("No.", field="messages"), FlotillaError("Broken.")):
        model = Dying(2, error=error)
        with pytest.raises(type(error)):
            await run(model, prompt())
        assert len(model.prompts) == 1


async def test_a_version_of_which_this_process_may_still_read_is_waited_for_a_moment() -> None:
    missing = NotFound("There is no model 'new@1'.", field="model")
    assert text_of(await run(Dying(0, 0, error=missing), prompt()))
    clock, never = Clock(), Dying(*[0] * 99, error=missing)
    with pytest.raises(NotFound):
        [part async for part in going_on(never, prompt(), clock=clock, patience_s=60.0)]
    assert PLANS_READ_S <= clock.at < 2 * PLANS_READ_S + 1


async def test_a_reply_without_an_end_is_an_error() -> None:
    with pytest.raises(FlotillaError, match="without saying so"):
        await run(Dying(-1), prompt())


async def test_who_stops_reading_stops_the_model_and_each_failure_is_told() -> None:
    model, told = Dying(1, 1), list[FlotillaError]()
    parts = going_on(model, prompt(), clock=Clock(), patience_s=9.0, retried=told.append)
    async with aclosing(parts):
        for _ in range(3):
            await anext(parts)
        assert model.model.unfinished == 1 and len(told) == 2
    assert model.model.unfinished == 0
