"""The plainest engine: answers at once with the sentence of its sources that fits the question best.

No weights, no service, nothing that can be down: the last fallback in an outage. It goes on from what another
engine said by saying its sentence after it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal

import msgspec

from flotilla.core.clock import Clock, SystemClock
from flotilla.core.errors import AdapterMissing, Unavailable, Unsupported
from flotilla.core.generation import EngineLoad, Finished, Generated, Piece, Prompt, Usage
from flotilla.core.versions import Version
from models.engines import decode
from models.quoting import quote
from models.recent import FirstTokens
from models.script import after, tokens_of, until_stop
from models.structured import tools_of

NO_OTHER = "Ask a model that can, or leave it out."


class ExtractSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str = "extract"
    common_min: int = 1
    """Words that a sentence has to share with the question; where none does, it says that it doesn't know."""


async def open_engine(
    version: Version, folder: str, *, name: str, threads: int = 0, clock: Clock | None = None
) -> ExtractModel:
    """See `models.engines.open_engine`. Weights and threads mean nothing to it."""
    return ExtractModel(msgspec.structs.replace(decode(version.settings, ExtractSettings), name=name), clock)


class ExtractModel:
    """See `Engine`. A token is a word with the space before it."""

    def __init__(self, settings: ExtractSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._first_tokens = FirstTokens()
        self._running = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"<ExtractModel {self.name}, {self._running} running{', closed' * self._closed}>"

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def unfinished(self) -> int:
        return self._running

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        """See `Model.generate`. Raises `Unsupported` for what is more than a plain answer."""
        await self.ping()
        _check(prompt)
        start = self._clock.monotonic()
        tokens, reason = _said(prompt, quote(prompt, common_min=self._settings.common_min))
        self._running += 1
        try:
            if tokens:
                yield Piece(text="".join(tokens), tokens=len(tokens))
        finally:
            self._running -= 1
        now = self._clock.monotonic()
        took_ms = 1000 * (now - start)
        self._first_tokens.add(now, took_ms)
        yield Finished(reason=reason, usage=_usage(prompt, tokens), first_token_ms=took_ms, total_ms=took_ms)

    def load(self) -> EngineLoad:
        p95 = self._first_tokens.p95(self._clock.monotonic())
        return EngineLoad(running=self._running, first_token_ms=p95)

    async def load_adapter(self, id: str, folder: str) -> None:
        raise _no_weights(self.name, "adapter")

    async def unload_adapter(self, id: str) -> None:
        """There never is one."""

    async def reload(self, folder: str, name: str) -> None:
        raise _no_weights(self.name, "source")

    async def ping(self) -> None:
        if self._closed:
            raise Unavailable(f"{self.name} is closed.")

    async def close(self) -> None:
        self._closed = True


def _no_weights(name: str, field: str) -> Unsupported:
    return Unsupported(
        f"{name} has no weights to change.", field=field, next="Start another version instead."
    )


def _check(prompt: Prompt) -> None:
    if prompt.adapter:
        raise AdapterMissing("This engine has no adapters.", next=NO_OTHER)
    forced = tools_of(prompt) and prompt.tool_choice != "auto"
    asked = {
        "schema": prompt.schema,
        "tools": forced,
        "raw": prompt.raw,
        "logprobs": prompt.logprobs is not None,
    }
    for field, is_asked in asked.items():
        if is_asked:
            raise Unsupported(f"An engine that only quotes can't do `{field}`.", field=field, next=NO_OTHER)


def _said(prompt: Prompt, answer: str) -> tuple[list[str], Literal["stop", "length"]]:
    """The tokens that are left to say of `answer`, after what was said, by whomever."""
    whole = tokens_of(until_stop(_joined(prompt.said, answer), prompt.stop))
    kept = whole[: prompt.tokens_max]
    return after(kept, len(prompt.said)), "stop" if len(kept) == len(whole) else "length"


def _joined(said: str, answer: str) -> str:
    if answer.startswith(said):
        return answer
    if answer in said:
        return said
    return said + " " * (not said[-1].isspace()) + answer


def _usage(prompt: Prompt, tokens: list[str]) -> Usage:
    read = sum(len(tokens_of(message.text)) for message in prompt.messages) + len(tokens_of(prompt.said))
    return Usage(prompt_tokens=read, completion_tokens=len(tokens))
