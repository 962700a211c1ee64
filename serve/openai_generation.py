"""The replies to one request of an OpenAI client: made at once, counted and charged, and cancelled in the
engine when the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from fastapi import Request

from actors.serving.going_on import going_on
from actors.serving.holding import CLIENT_HELD_MAX_S, ClientLoops
from flotilla.core.charges import Charge, Outcome, cost_of, price_of
from flotilla.core.errors import FlotillaError
from flotilla.core.generation import Finished, Generated, Piece, Prompt, Usage
from flotilla.core.limits import LIMITS
from serve.doors import Doors

PATIENCE_S = LIMITS.openai_patience_s
_AHEAD_MAX = 64  # parts of several choices that wait for the client to read
_BYTES_PER_TOKEN = 4

T = TypeVar("T")
Part = tuple[int, Generated]
"""Of which choice."""


class Gone(Exception):
    """The client has hung up."""


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; it is cancelled as soon as the client hangs up. Raises `Gone` then."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise Gone
    finally:
        leaving.cancel()
        doing.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def admit(doors: Doors, tenant: str) -> dict[str, str]:
    """Headers that say what the tenant may still use. Raises `LimitReached` if it may use nothing."""
    left = await doors.allowances.check(tenant)
    if left is None:
        return {}
    return {
        "x-ratelimit-limit-tokens": str(left.limit),
        "x-ratelimit-remaining-tokens": str(left.tokens),
        "x-ratelimit-reset-tokens": f"{left.resets_s:.0f}s",
    }


def estimated_tokens(texts: Sequence[str]) -> int:
    """About as many as there are, for what no engine has counted: a token for four bytes."""
    return sum(-(-len(text.encode()) // _BYTES_PER_TOKEN) for text in texts)


class Making:
    """`prompts` has one for each choice, `n` in a row with the same beginning. `version` is the one that was
    chosen; `made_by` the one that answers, as far as is known yet."""

    def __init__(
        self, doors: Doors, tenant: str, key: str, prompts: Sequence[Prompt], *, n: int, version: str
    ) -> None:
        self._doors = doors
        self._tenant = tenant
        self._key = key
        self._prompts = prompts
        self._n = n
        self._began = doors.clock.monotonic()
        self._first_token_ms = 0.0
        self._tokens = [0] * len(prompts)  # that were handed on of each choice
        self._ends: dict[int, Finished] = {}
        self.made_by = version
        self.choices = len(prompts)

    async def parts(self) -> AsyncGenerator[Part]:
        """Of all choices, as they come. Charged once, however it ends."""
        outcome: Outcome = "cancelled"
        waiting = self._doors.gate.wait(self._tenant)
        try:
            async with aclosing(merged([self._one(prompt) for prompt in self._prompts])) as parts:
                async for index, part in parts:
                    waiting.over()
                    self._count(index, part)
                    if len(self._ends) == len(self._prompts):
                        outcome = "done"
                    yield index, part
        except Exception:
            outcome = "failed"
            raise
        finally:
            waiting.over()
            self._charge(outcome)

    def _one(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        doors = self._doors

        def retried(error: FlotillaError) -> None:
            doors.log.warning("generation.retried", request=self._key, reason=error.detail)

        return going_on(doors.model, prompt, clock=doors.clock, patience_s=PATIENCE_S, retried=retried)

    def _count(self, index: int, part: Generated) -> None:
        if not self._first_token_ms:
            self._first_token_ms = 1000 * (self._doors.clock.monotonic() - self._began)
        self.made_by = part.model or self.made_by
        if isinstance(part, Piece):
            self._tokens[index] += part.tokens
        else:
            self._ends[index] = part
            if part.reason == "tools":
                loops = ClientLoops(self.made_by)
                self._doors.model.hold(loops, {self.made_by}, most_s=CLIENT_HELD_MAX_S)

    @property
    def usage(self) -> Usage:
        """Of the request: a prompt that several choices begin with counts once. What the engine didn't get
        to count, as it was stopped, is estimated."""
        firsts = range(0, len(self._prompts), self._n)
        prompts = [self._prompt_usage(range(first, first + self._n)) for first in firsts]
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in prompts),
            cached_tokens=sum(usage.cached_tokens for usage in prompts),
            completion_tokens=sum(self._completion(n) for n in range(len(self._prompts))),
        )

    def _prompt_usage(self, choices: range) -> Usage:
        ended = next((self._ends[n].usage for n in choices if n in self._ends), None)
        return ended or Usage(prompt_tokens=estimated_tokens(_texts(self._prompts[choices.start])))

    def _completion(self, index: int) -> int:
        end = self._ends.get(index)
        return end.usage.completion_tokens if end else self._tokens[index]

    def _charge(self, outcome: Outcome) -> None:
        """What nothing was made of costs nothing."""
        if not self._ends and not any(self._tokens):
            return
        doors, usage = self._doors, self.usage
        price = price_of(doors.model.versions(self._tenant), self.made_by)
        doors.charging.charge(
            Charge(
                tenant=self._tenant,
                key=self._key,
                at=doors.clock.now(),
                source="openai",
                model=self.made_by,
                usage=usage,
                cost=cost_of(usage, price),
                first_token_ms=round(self._first_token_ms, 3),
                outcome=outcome,
            )
        )


def _texts(prompt: Prompt) -> list[str]:
    return [prompt.raw, *(message.text for message in prompt.messages)]


def repeated(prompts: Sequence[Prompt], n: int) -> list[Prompt]:
    """`n` of each in a row, each with a seed of its own."""
    return [
        msgspec.structs.replace(prompt, seed=(prompt.seed + k) % 2**63)
        for prompt in prompts
        for k in range(n)
    ]


async def merged(streams: Sequence[AsyncGenerator[Generated]]) -> AsyncGenerator[Part]:
    """The parts of all, each with its stream's number. Closing it closes all; the first error ends all."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as parts:
            async for part in parts:
                yield 0, part
        return
    ready: asyncio.Queue[tuple[int, Generated | Exception | None]] = asyncio.Queue(_AHEAD_MAX)
    pumps = [asyncio.ensure_future(_pump(n, stream, ready)) for n, stream in enumerate(streams)]
    try:
        left = len(pumps)
        while left:
            index, part = await ready.get()
            if isinstance(part, Exception):
                raise part
            if part is None:
                left -= 1
            else:
                yield index, part
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    index: int,
    stream: AsyncGenerator[Generated],
    ready: asyncio.Queue[tuple[int, Generated | Exception | None]],
) -> None:
    try:
        async with aclosing(stream) as parts:
            async for part in parts:
                await ready.put((index, part))
    except Exception as error:
        await ready.put((index, error))
    else:
        await ready.put((index, None))
