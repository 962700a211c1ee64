"""The scripted model: the same seed and prompt give the same text, at the pace of any clock."""

from __future__ import annotations

import asyncio
import heapq
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from flotilla.core.errors import Overloaded, Refused, Unavailable
from flotilla.core.generation import ChatMessage, Finished, Piece, Prompt
from flotilla.core.knowledge import Passage
from flotilla.core.policy.prompting import build
from models.quoting import NOTHING_TO_QUOTE
from models.scripted import ScriptedModel, ScriptSettings, compose, tokens_of

FAST = ScriptSettings(first_token_s=0, token_s=0)


class TurnedClock:
    """A clock whose hands move only when everybody sleeps."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self.timers = 0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._now)

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self.timers += 1
        heapq.heappush(self._sleepers, (self._now + seconds, self.timers, woken))
        asyncio.get_running_loop().call_soon(self._turn)
        await woken.wait()

    def _turn(self) -> None:
        self._now, _, woken = heapq.heappop(self._sleepers)
        woken.set()


def ask(text: str, **settings: object) -> Prompt:
    return Prompt(messages=(ChatMessage(role="user", text=text),), **settings)  # type: ignore[arg-type]


def text(settings: ScriptSettings, prompt: Prompt) -> str:
    return "".join(compose(settings, prompt).tokens)


async def test_two_copies_say_the_same() -> None:
    prompt = ask("What is a fee?")
    one, two = [[g async for g in ScriptedModel(FAST).generate(prompt)] for _ in range(2)]
    assert [g for g in one if isinstance(g, Piece)] == [g for g in two if isinstance(g, Piece)]


def test_seed_and_prompt_decide() -> None:
    base = text(FAST, ask("a"))
    assert text(ScriptSettings(seed=1), ask("a")) != base
    assert text(FAST, ask("b")) != base
    assert text(FAST, ask("a", seed=1)) == base
    assert text(FAST, ask("a", seed=1, temperature=1.0)) != base


def test_goes_on_after_any_character() -> None:
    whole = text(FAST, ask("a"))
    for at in range(len(whole) + 1):
        assert whole[:at] + text(FAST, ask("a", said=whole[:at])) == whole


def test_tokens_join_to_their_text() -> None:
    for sample in ("", " ", "a b\n\nc  ", "  x", "日本 👩‍👩‍👧\t"):
        assert "".join(tokens_of(sample)) == sample


def test_lengths_spread_around_the_median() -> None:
    settings = ScriptSettings(tokens_median=50, tokens_spread=0.4)
    prompts = [ask(str(n), tokens_max=10_000) for n in range(400)]
    lengths = sorted(len(compose(settings, prompt).tokens) for prompt in prompts)
    assert 45 <= lengths[200] <= 55
    assert lengths[20] < 35
    assert lengths[380] > 75


def test_replies_follow_the_turns_of_a_conversation() -> None:
    settings = ScriptSettings(mode="replies", replies=("First.", "Second."))
    turns = (
        ChatMessage(role="user", text="a"),
        ChatMessage(role="assistant", text="First."),
        ChatMessage(role="user", text="b"),
    )
    assert text(settings, Prompt(messages=turns[:1])) == "First."
    assert text(settings, Prompt(messages=turns)) == "Second."


def test_quotes_the_sentence_that_fits_the_question() -> None:
    quoting = ScriptSettings(mode="quote")
    found = "Cards are free and come by post.\nA wire transfer costs $25.\nOpen from 9 to 5."
    passages = [Passage(id="d#0", document="d", title="Cards and transfers", text=found)]
    prompt = build("You work for a bank.", passages, [], "How much is a wire transfer?")
    assert text(quoting, prompt) == "A wire transfer costs $25."
    assert text(quoting, ask("Cards are free. Transfers cost $25.\nWhat do transfers cost?")) == (
        "Transfers cost $25."
    )
    assert text(quoting, ask("Hello?")) == NOTHING_TO_QUOTE


async def test_keeps_the_pace_of_its_clock() -> None:
    clock = TurnedClock()
    model = ScriptedModel(ScriptSettings(first_token_s=2.0, token_s=0.5, tokens_spread=0), clock)
    out = [generated async for generated in model.generate(ask("a", tokens_max=11))]
    assert isinstance(end := out[-1], Finished)
    assert end.first_token_ms == pytest.approx(2000, abs=10)
    assert end.total_ms == pytest.approx(7000, abs=10)
    assert len(out) == 12


async def test_thousands_share_timers() -> None:
    clock = TurnedClock()
    model = ScriptedModel(ScriptSettings(first_token_s=1.0, token_s=0.1, tokens_spread=0), clock)

    async def one(n: int) -> int:
        return len([g async for g in model.generate(ask(str(n), tokens_max=10))])

    assert await asyncio.gather(*(one(n) for n in range(2000))) == [11] * 2000
    assert clock.timers <= 20  # timers that were set, for 20,000 tokens


async def test_over_its_limit_it_sheds() -> None:
    model = ScriptedModel(ScriptSettings(running_max=1, first_token_s=0, token_s=0))
    async with aclosing(model.generate(ask("a"))) as first:
        await anext(first)
        with pytest.raises(Overloaded) as shed:
            await anext(model.generate(ask("b")))
        assert shed.value.retry_after_s
    assert [g async for g in model.generate(ask("b"))]


async def test_closed_it_is_unavailable() -> None:
    model = ScriptedModel(FAST)
    await model.close()
    with pytest.raises(Unavailable):
        await model.ping()
    with pytest.raises(Unavailable):
        await anext(model.generate(ask("a")))


def test_a_full_context_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        compose(ScriptSettings(context_tokens_max=3), ask("one two three"))
    assert (refused.value.field, bool(refused.value.next)) == ("messages", True)
