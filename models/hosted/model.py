"""An engine that somebody else runs: what all providers have in common. Each provider's own is in its file.

Time-outs are ours, on whole events: a provider that keeps its socket warm and says nothing is as silent as one
that hangs. Nothing is tried again here; whoever routes decides where to go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic
from typing import Any, Literal, Protocol

import msgspec

from flotilla.core.errors import AdapterMissing, Overloaded, Unavailable, Unsupported
from flotilla.core.generation import (
    EngineLoad,
    Finished,
    Generated,
    Piece,
    Prompt,
    TokenLogprob,
    ToolCall,
    Usage,
)
from models.hosted.errors import Troubles
from models.hosted.text import Overlap, Stops
from models.recent import FirstTokens
from models.structured import schema_of, tools_of

BUSY_RETRY_S = 1.0
CHARS_PER_TOKEN = 4
"""About, where the provider doesn't say: of text that was said already, and of a reply that we end."""


class HostedSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every provider is asked with. A key is never among them: `api_key_env` names the environment variable
    of the replica that holds it."""

    model: str
    """As the provider calls it."""
    base_url: str = ""
    """The provider's own if empty."""
    api_key_env: str = ""
    """The SDK's usual one if empty; "-" for an endpoint that wants no key."""
    timeout_s: float = 60.0
    """Without any event, from the request on."""
    running_max: int = 256
    """Replies made at once; past it `Overloaded`."""
    ping_fresh_s: float = 60.0
    """`ping` trusts an answer this young instead of asking for one."""
    ping_timeout_s: float = 10.0
    sampling: bool = True
    """Whether to say the temperature, top-p and the seed; some models take none."""
    prefill: bool = False
    """Whether a reply can be given its beginning, to be gone on with to the character. Where not, the model is
    asked to go on, and what it repeats is taken off: as good as the model is at it."""
    extra: dict[str, Any] = {}
    """Goes into the request's body as it is."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a provider's stream."""

    reason: Literal["stop", "length", "tools"]
    usage: Usage
    calls: tuple[ToolCall, ...] = ()


Step = Piece | End


class Provider(Protocol):
    """One provider's protocol, by its SDK. No exception of the SDK leaves it."""

    def stream(self, prompt: Prompt) -> AsyncGenerator[Step]:
        """Pieces (a `text` may be empty: it is alive), then one `End`. Closing it closes the connection."""
        ...

    def overlap(self, said: str) -> Overlap:
        """For what may be repeated of `said`. Asked for once the stream has begun."""
        ...

    def stops_kept(self, stops: tuple[str, ...]) -> tuple[str, ...]:
        """Those that the provider can't be told of."""
        ...

    async def check(self) -> None:
        """A cheap request that needs the key."""
        ...

    async def close(self) -> None: ...


class HostedModel:
    """See `Engine`. It holds no weights: adapters and `reload` are `Unsupported`."""

    def __init__(self, name: str, settings: HostedSettings, provider: Provider, troubles: Troubles) -> None:
        self._name, self._settings = name, settings
        self._provider, self._troubles = provider, troubles
        self._first_tokens = FirstTokens()
        self._running = self._waiting = 0
        self._heard_at = -float("inf")
        self._closed = False

    def __repr__(self) -> str:
        return f"<HostedModel {self.name}, {self._running} running{', closed' * self._closed}>"

    @property
    def name(self) -> str:
        return self._name

    @property
    def unfinished(self) -> int:
        """Generations under way."""
        return self._running

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        """See `Model.generate`. `tokens_max` bounds the whole reply, `said` (about) included."""
        self._admit(prompt)
        left = prompt.tokens_max - about(prompt.said)
        if left <= 0:
            yield Finished(reason="length", usage=Usage(), first_token_ms=0.0, total_ms=0.0)
            return
        told = _Telling(msgspec.structs.replace(prompt, tokens_max=left), self._provider)
        self._running += 1
        self._waiting += 1
        try:
            async with aclosing(self._steps(told)) as steps:
                async for step in steps:
                    if generated := told.take(step):
                        yield generated
                    if told.ended:
                        yield told.finished
                        return
        finally:
            self._running -= 1
            self._waiting -= not told.begun

    def _admit(self, prompt: Prompt) -> None:
        if self._closed:
            raise Unavailable(f"{self.name} is closed.")
        if prompt.adapter:
            raise AdapterMissing(f"{self.name} has no adapters.", next="Ask the version itself.")
        for check in (schema_of, tools_of):
            check(prompt)  # refused here, in our words
        if self._running >= self._settings.running_max:
            raise Overloaded(f"{self.name} is making {self._running} replies.", retry_after_s=BUSY_RETRY_S)

    async def _steps(self, told: _Telling) -> AsyncGenerator[Step]:
        """The provider's, one in time after the other, the last of them an `End`."""
        async with aclosing(self._provider.stream(told.prompt)) as stream:
            while True:
                try:
                    async with asyncio.timeout(self._settings.timeout_s):
                        step = await anext(stream, None)
                except TimeoutError:
                    raise self._troubles.silent(self._settings.timeout_s) from None
                if step is None:
                    raise self._troubles.cut()
                self._heard_at = now = monotonic()
                if told.begin(now):
                    self._waiting -= 1
                    self._first_tokens.add(now, told.first_token_ms)
                yield step

    def load(self) -> EngineLoad:
        """What waits, waits at the provider: its tokens are not ours to count."""
        return EngineLoad(
            running=self._running - self._waiting,
            waiting=self._waiting,
            first_token_ms=self._first_tokens.p95(monotonic()),
        )

    async def load_adapter(self, id: str, folder: str) -> None:
        raise self._unsupported("adapter")

    async def unload_adapter(self, id: str) -> None:
        """There never is one."""

    async def reload(self, folder: str, name: str) -> None:
        raise self._unsupported("source")

    def _unsupported(self, field: str) -> Unsupported:
        next = "Start another version instead."
        return Unsupported(f"The weights of {self.name} are its provider's.", field=field, next=next)

    async def ping(self) -> None:
        """Returns if the provider answered lately or answers now; raises what is wrong otherwise."""
        if self._closed:
            raise Unavailable(f"{self.name} is closed.")
        if monotonic() - self._heard_at < self._settings.ping_fresh_s:
            return
        try:
            async with asyncio.timeout(self._settings.ping_timeout_s):
                await self._provider.check()
        except TimeoutError:
            raise self._troubles.silent(self._settings.ping_timeout_s) from None
        self._heard_at = monotonic()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._provider.close()


class _Telling:
    """One reply on its way through."""

    def __init__(self, prompt: Prompt, provider: Provider) -> None:
        self.prompt, self._provider = prompt, provider
        self._stops = Stops(provider.stops_kept(prompt.stop))
        self._overlap: Overlap | None = None
        self._started = monotonic()
        self._shown = self._tokens = 0
        self._logprobs: tuple[TokenLogprob, ...] = ()
        self._end: End | None = None
        self.begun, self.first_token_ms = False, 0.0

    def begin(self, now: float) -> bool:
        """True for the first step."""
        if self.begun:
            return False
        self.begun, self.first_token_ms = True, 1000 * (now - self._started)
        self._overlap = self._provider.overlap(self.prompt.said)
        return True

    def take(self, step: Step) -> Piece | None:
        """What can be shown."""
        assert self._overlap is not None
        if isinstance(step, End):
            self._end = step
            return self._piece(self._stops.take(self._overlap.rest()) + self._stops.rest())
        self._tokens += step.tokens
        self._logprobs += step.logprobs
        return self._piece(self._stops.take(self._overlap.take(step.text)))

    def _piece(self, text: str) -> Piece | None:
        if not text:
            return None
        piece = Piece(text=text, tokens=max(1, self._tokens - self._shown), logprobs=self._logprobs)
        self._shown, self._logprobs = max(self._tokens, self._shown + 1), ()
        return piece

    @property
    def ended(self) -> bool:
        return self._end is not None or self._stops.found

    @property
    def finished(self) -> Finished:
        end = self._end or End(reason="stop", usage=self._estimate())
        total_ms = 1000 * (monotonic() - self._started)
        return Finished(
            reason=end.reason,
            usage=end.usage,
            first_token_ms=self.first_token_ms,
            total_ms=total_ms,
            calls=end.calls,
        )

    def _estimate(self) -> Usage:
        """Of a reply that we ended: the provider's numbers come after its own end."""
        texts = (self.prompt.raw, self.prompt.said, *(message.text for message in self.prompt.messages))
        return Usage(prompt_tokens=sum(map(about, texts)), completion_tokens=self._tokens)


def about(text: str) -> int:
    """Tokens in `text`, about."""
    return len(text) // CHARS_PER_TOKEN
