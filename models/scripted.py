"""A model that follows a script: text, pace and length from a seed, no weights, no dependencies.

For laptops, load tests, drills and simulations. The whole reply follows from the seed and the prompt, so
any copy of the model, in any process, goes on where another one stopped. What it says is in `script`, when
it says it in `pacing`; here it is an engine.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec

from flotilla.core.clock import Clock, SystemClock
from flotilla.core.errors import AdapterMissing, Misconfigured, Overloaded, Unavailable
from flotilla.core.generation import EngineLoad, Generated, Piece, Prompt
from flotilla.core.versions import Version
from models.engines import decode
from models.pacing import Capacity, Metronome, Pace, Prefill, SharedPace, SteadyPace
from models.prefixes import PrefixCache, Read
from models.recent import FirstTokens
from models.script import Reply, ScriptSettings, compose, logprobs_of, tokens_of

__all__ = ["ScriptSettings", "ScriptedModel", "compose", "open_engine", "tokens_of"]

BUSY_RETRY_S = 1.0
BROKEN_RETRY_S = 0.1


async def open_engine(
    version: Version, folder: str, *, name: str, threads: int = 0, clock: Clock | None = None
) -> ScriptedModel:
    """See `models.engines.open_engine`. `threads` means nothing to it."""
    settings = msgspec.structs.replace(decode(version.settings, ScriptSettings), name=name)
    if version.context_tokens:
        settings = msgspec.structs.replace(settings, context_tokens_max=version.context_tokens)
    return ScriptedModel(settings, clock, folder=folder)


class ScriptedModel:
    """See `Engine`. A token is a word with the space before it."""

    def __init__(self, settings: ScriptSettings, clock: Clock | None = None, *, folder: str = "") -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._metronome = Metronome(self._clock, settings.tick_s)
        self._prefill = Prefill(self._clock, self._metronome, settings.prefill_tokens_per_s)
        self._capacity = Capacity(self._clock, settings.capacity_tokens_per_s, settings.token_s)
        self._cache = PrefixCache(settings.cache_tokens_max)
        self._first_tokens = FirstTokens()
        self._mishaps = random.Random(settings.seed)
        self._adapters: OrderedDict[str, str] = OrderedDict()
        self._weights = Path(folder).name
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
        self._use(prompt.adapter)
        reply = compose(self._settings, prompt, self._weights)
        if self._running >= self._settings.running_max:
            raise Overloaded(f"{self.name} is making {self._running} replies.", retry_after_s=BUSY_RETRY_S)
        self._running += 1
        try:
            async with aclosing(self._make(prompt, reply)) as made:
                async for generated in made:
                    yield generated
        finally:
            self._running -= 1

    def _use(self, adapter: str) -> None:
        if not adapter:
            return
        if adapter not in self._adapters:
            raise AdapterMissing(f"{self.name} has no adapter {adapter!r}.", next="Have it loaded first.")
        self._adapters.move_to_end(adapter)

    async def _make(self, prompt: Prompt, reply: Reply) -> AsyncGenerator[Generated]:
        arrived, first_s = self._clock.monotonic(), 0.0
        breaks_at = self._breaks_at(reply)
        cached = await self._read(prompt) if self._settings.prefill_tokens_per_s else 0
        pace, played = self._pace(), 0
        try:
            while played < len(reply.tokens):
                await pace.wait(played)
                if played == 0:
                    first_s = self._first_token(arrived)
                due = pace.due(played, len(reply.tokens))
                if due >= breaks_at:
                    raise Unavailable(
                        f"{self.name} broke off, as it was told to.", retry_after_s=BROKEN_RETRY_S
                    )
                if not reply.calls:
                    yield _piece(reply.tokens, played, due, prompt.logprobs)
                played = due
        finally:
            pace.end()
        if self._settings.prefill_tokens_per_s:
            self._cache.hold(_scope(prompt), _answered(prompt, reply))
        total_s = self._clock.monotonic() - arrived
        yield reply.finished(
            first_token_s=first_s if played else total_s, total_s=total_s, cached_tokens=cached
        )

    def _breaks_at(self, reply: Reply) -> float:
        """Before which token the reply breaks off: in the middle, or never."""
        fails = self._settings.fail_share > 0 and self._mishaps.random() < self._settings.fail_share
        return len(reply.tokens) // 2 + 1 if fails else float("inf")

    async def _read(self, prompt: Prompt) -> int:
        """Waits until the prompt has been read; how many of its tokens were in the cache."""
        messages = _messages(prompt)
        cached = self._cache.cached(_scope(prompt), messages)
        await self._prefill.read(sum(message.tokens for message in messages) - cached)
        self._cache.hold(_scope(prompt), messages)
        return cached

    def _pace(self) -> Pace:
        settings, now = self._settings, self._clock.monotonic()
        first_s = settings.first_token_s + settings.slow_ms / 1000
        if settings.capacity_tokens_per_s > 0:
            return SharedPace(self._clock, self._metronome, now + first_s, self._capacity)
        return SteadyPace(self._clock, self._metronome, now, first_s, settings.token_s)

    def _first_token(self, arrived: float) -> float:
        now = self._clock.monotonic()
        self._first_tokens.add(now, 1000 * (now - arrived))
        return now - arrived

    def load(self) -> EngineLoad:
        waiting = self._prefill.waiting
        return EngineLoad(
            running=self._running - waiting,
            waiting=waiting,
            queued_tokens=self._prefill.queued_tokens,
            first_token_ms=self._first_tokens.p95(self._clock.monotonic()),
            cache_used=self._cache.used,
            adapters=tuple(self._adapters),
        )

    async def load_adapter(self, id: str, folder: str) -> None:
        """See `Engine`. Beyond `adapters_max` the one that was used longest ago goes."""
        _check(folder, "adapter")
        self._adapters[id] = folder
        self._adapters.move_to_end(id)
        while len(self._adapters) > max(1, self._settings.adapters_max):
            self._adapters.popitem(last=False)

    async def unload_adapter(self, id: str) -> None:
        self._adapters.pop(id, None)

    async def reload(self, folder: str, name: str) -> None:
        """See `Engine`. A folder of another name has other words."""
        _check(folder, "source")
        self._settings, self._weights = msgspec.structs.replace(self._settings, name=name), Path(folder).name
        self._cache.forget()

    async def ping(self) -> None:
        if self._closed:
            raise Unavailable(f"{self.name} is closed.")

    async def close(self) -> None:
        self._closed = True
        self._metronome.stop()


def _check(folder: str, field: str) -> None:
    """It reads no weights, but what isn't there no engine could load."""
    if folder and not Path(folder).is_dir():
        raise Misconfigured(f"{folder} is not a folder.", field=field, next="Give the path of one.")


def _piece(tokens: Sequence[str], played: int, due: int, alternatives: int | None) -> Piece:
    new = tokens[played:due]
    return Piece(text="".join(new), tokens=due - played, logprobs=logprobs_of(new, played, alternatives))


def _scope(prompt: Prompt) -> str:
    """Prefixes are shared within a tenant and an adapter, never across, as vLLM's are."""
    return f"{prompt.origin.tenant}\0{prompt.adapter}"


def _messages(prompt: Prompt) -> list[Read]:
    said = [(message.role, message.text) for message in prompt.messages]
    texts = [*said, *([("raw", prompt.raw)] if prompt.raw else [])]
    return [Read(role, text, len(tokens_of(text))) for role, text in texts]


def _answered(prompt: Prompt, reply: Reply) -> list[Read]:
    """The conversation with the answer, as the next prompt will have it."""
    answer = prompt.said + "".join(reply.tokens)
    return [*_messages(prompt), Read("assistant", answer, len(tokens_of(answer)))]
