"""A model that follows a script: text, pace and length from a seed, no weights, no dependencies.

For laptops, load tests and simulations. The whole reply follows from the seed and the prompt, so
any copy of the model, in any process, goes on where another one stopped.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections.abc import AsyncGenerator, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Literal

import msgspec

from flotilla.core.clock import Clock, SystemClock
from flotilla.core.errors import Overloaded, Refused, Unavailable
from flotilla.core.generation import Finished, Generated, Piece, Prompt, Usage

Mode = Literal["words", "replies", "quote"]

BUSY_RETRY_S = 1.0
NOTHING_TO_QUOTE = "I don't have that information."

# A few words of more than one byte, so that whoever splits text learns not to split characters.
_VOCABULARY = (
    "your account card payment transfer balance fee limit branch statement deposit savings rate is has "
    "will can open check arrives today tomorrow within three days without charge and or when after the "
    "a this once confirmed naïve café Zürich 日本語 👍 👩‍👩‍👧 €5"
)
WORDS = _VOCABULARY.split()


class ScriptSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`words` makes sentences up; `replies` gives `replies` in the order of a conversation's turns;
    `quote` answers with the one of the prompt's sources that shares most words with the question."""

    name: str = "scripted"
    mode: Mode = "words"
    seed: int = 0
    replies: tuple[str, ...] = ()
    tokens_median: int = 60
    """Length of a made-up reply: log-normal around this,"""
    tokens_spread: float = 0.4
    """with this standard deviation of the logarithm; 0 makes all replies equally long."""
    first_token_s: float = 0.15
    token_s: float = 0.02
    """Seconds between tokens; 0 makes a piece per token as fast as it is read."""
    tick_s: float = 0.005
    """Replies that are due within the same tick share one timer."""
    context_tokens_max: int = 8192
    running_max: int = 100_000


class ScriptedModel:
    """See `Model`. A token is a word with the space before it."""

    def __init__(self, settings: ScriptSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._metronome = _Metronome(self._clock, settings.tick_s)
        self._running = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<ScriptedModel {self.name}, {self._running} running{', closed' * self._closed}>"

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def unfinished(self) -> int:
        """Generations under way."""
        return self._running

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        """See `Model.generate`. `tokens_max` bounds the whole reply, `said` included."""
        await self.ping()
        reply = compose(self._settings, prompt)
        if self._running >= self._settings.running_max:
            raise Overloaded(f"{self.name} is making {self._running} replies.", retry_after_s=BUSY_RETRY_S)
        self._running += 1
        try:
            async for generated in self._play(reply):
                yield generated
        finally:
            self._running -= 1

    async def _play(self, reply: _Reply) -> AsyncGenerator[Generated]:
        start, played = self._clock.monotonic(), 0
        first_at = start
        while played < len(reply.tokens):
            await self._wait(start, played)
            if played == 0:
                first_at = self._clock.monotonic()
            due = self._due(start, played, len(reply.tokens))
            yield Piece(text="".join(reply.tokens[played:due]), tokens=due - played)
            played = due
        total_s = self._clock.monotonic() - start
        yield reply.finished(first_token_s=first_at - start if played else total_s, total_s=total_s)

    async def _wait(self, start: float, played: int) -> None:
        delay = self._settings.first_token_s + played * self._settings.token_s
        if played == 0 or self._settings.token_s > 0:
            await self._metronome.until(start + delay)

    def _due(self, start: float, played: int, last: int) -> int:
        """How many tokens are to be out by now: all that are due go in one piece, as in an engine
        whose reader fell behind."""
        pace, since = self._settings.token_s, self._clock.monotonic() - start - self._settings.first_token_s
        by_now = math.floor(since / pace) + 1 if pace > 0 else played + 1
        return min(last, max(played + 1, by_now))

    async def ping(self) -> None:
        if self._closed:
            raise Unavailable(f"{self.name} is closed.")

    async def close(self) -> None:
        self._closed = True
        self._metronome.stop()


class _Metronome:
    """One timer per tick, however many wait for it."""

    def __init__(self, clock: Clock, tick_s: float) -> None:
        self._clock = clock
        self._tick_s = tick_s
        self._beats: dict[int, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def until(self, moment: float) -> None:
        """Returns at the first beat at or after `moment` (of the clock's `monotonic`)."""
        if moment > self._clock.monotonic():
            await self._beat(math.ceil(moment / self._tick_s)).wait()

    def _beat(self, number: int) -> asyncio.Event:
        event = self._beats.get(number)
        if event is None:
            event = self._beats[number] = asyncio.Event()
            task = asyncio.ensure_future(self._ring(number, event))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return event

    async def _ring(self, number: int, event: asyncio.Event) -> None:
        try:
            await self._clock.sleep(max(0.0, number * self._tick_s - self._clock.monotonic()))
        finally:  # also when stopped: nobody waits for a beat that never comes
            self._beats.pop(number, None)
            event.set()

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What is left to say, and how it ends."""

    tokens: list[str]
    reason: Literal["stop", "length"]
    prompt_tokens: int

    def finished(self, *, first_token_s: float, total_s: float) -> Finished:
        usage = Usage(prompt_tokens=self.prompt_tokens, completion_tokens=len(self.tokens))
        return Finished(
            reason=self.reason, usage=usage, first_token_ms=1000 * first_token_s, total_ms=1000 * total_s
        )


def compose(settings: ScriptSettings, prompt: Prompt) -> _Reply:
    """The rest of the reply after `said`. Raises `Refused` if the prompt fills the context."""
    prompt_tokens = sum(len(tokens_of(message.text)) for message in prompt.messages)
    room = settings.context_tokens_max - prompt_tokens
    if room <= 0:
        raise Refused(
            f"The prompt has {prompt_tokens} tokens; this model takes {settings.context_tokens_max}, "
            "reply included.",
            field="messages",
            next="Send fewer or shorter messages, or start a new conversation.",
        )
    whole = tokens_of(_until_stop(_text(settings, prompt), prompt.stop))
    kept = whole[: min(prompt.tokens_max, room)]
    return _Reply(
        tokens=_after(kept, len(prompt.said)),
        reason="stop" if len(kept) == len(whole) else "length",
        prompt_tokens=prompt_tokens + len(tokens_of(prompt.said)),
    )


def tokens_of(text: str) -> list[str]:
    """Words with the space before them; they join to `text`."""
    return re.findall(r"\s*\S+|\s+$", text)


def _after(tokens: list[str], offset: int) -> list[str]:
    """What tokens have after `offset` characters; one that is cut gives its rest."""
    starts = accumulate(map(len, tokens), initial=0)
    rests = (token[max(0, offset - start) :] for token, start in zip(tokens, starts, strict=False))
    return [rest for rest in rests if rest]


def _text(settings: ScriptSettings, prompt: Prompt) -> str:
    match settings.mode:
        case "words":
            return _made_up(settings, prompt)
        case "replies":
            turn = sum(message.role == "assistant" for message in prompt.messages)
            return settings.replies[turn % len(settings.replies)] if settings.replies else ""
        case "quote":
            return quote(prompt)


def _until_stop(text: str, stop: tuple[str, ...]) -> str:
    ends = [at for s in stop if s and (at := text.find(s)) >= 0]
    return text[: min(ends)] if ends else text


def _made_up(settings: ScriptSettings, prompt: Prompt) -> str:
    chance = random.Random(_digest(settings, prompt))
    length = round(settings.tokens_median * chance.lognormvariate(0.0, settings.tokens_spread))
    words = [chance.choice(WORDS) for _ in range(max(1, length))]
    ends = {at for at in range(len(words)) if chance.random() < 0.1} | {len(words) - 1}
    return " ".join(word + "." * (at in ends) for at, word in enumerate(words))


def _digest(settings: ScriptSettings, prompt: Prompt) -> bytes:
    """Greedy decoding has no chance in it, so the prompt's seed counts only above temperature 0."""
    seed = prompt.seed if prompt.temperature > 0 else 0
    return blake2b(msgspec.msgpack.encode((settings.seed, seed, prompt.messages)), digest_size=16).digest()


def quote(prompt: Prompt) -> str:
    """The source that best fits what comes after the sources, the question; without sources, the
    sentence of the last user message that best fits its last line."""
    said = next((message.text for message in reversed(prompt.messages) if message.role == "user"), "")
    if prompt.sources:
        asked = said[max(said.rfind(source) + len(source) for source in prompt.sources) :]
        return _best(prompt.sources, asked)
    *before, question = [line for line in said.splitlines() if line.strip()] or [""]
    return _best([s.strip() for line in before for s in re.split(r"(?<=[.!?])\s+", line)], question)


def _best(sentences: Sequence[str], question: str) -> str:
    asked = _stems(question)
    return max(sentences, key=lambda s: len(asked & _stems(s)), default=NOTHING_TO_QUOTE)


def _stems(text: str) -> set[str]:
    """Words of four letters and more, cut to five: `transfers` and `transfer` are one."""
    return {word[:5] for word in re.findall(r"\w{4,}", text.lower())}
