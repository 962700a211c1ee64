"""What is measured of each way to talk, in the same order and with the same warm-up for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import aiohttp
import msgspec
import psutil

from benchmarks.peers.client import Busy, Conversation, Turn, client
from benchmarks.peers.script import TOKENS
from benchmarks.peers.servers import Server, Way, cpu_s, memory

OPENING_AT_ONCE = 16

T = TypeVar("T")


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything. `pace_s` is between the tokens of the turns that are measured together;
    `patience_s` ends a round of turns alone with fewer of them, at a peer that is slow."""

    warm_up_turns: int = 30
    alone_turns: int = 150
    patience_s: float = 12.0
    rounds: int = 3
    together: int = 64
    together_turns: int = 6
    pace_s: float = 0.02
    streams: int = 300
    warm_up_s: float = 3.0
    window_s: float = 8.0
    idle: int = 200


QUICK = Sizes(alone_turns=50, patience_s=4.0, together_turns=2, warm_up_s=1.0, window_s=3.0, idle=100)


class Flow(msgspec.Struct, frozen=True):
    """Tokens per second that many replies at once brought, the cores that this took, and how many turns were turned
    away meanwhile, to be asked again later."""

    tokens_per_s: float
    client_cores: float
    server_cores: float
    turned_away_per_s: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of each turn: the first token of one alone, by round, and what of the first token of those
    together was not the engine's. `idle_bytes` is of one conversation; None where nothing is kept."""

    name: str
    durable: bool
    alone: list[list[float]]
    overhead: list[float]
    flow: Flow
    idle_bytes: float | None = None


async def measure(server: Server, way: Way, sizes: Sizes) -> Measured:
    async with client() as http:
        await _alone(http, way, sizes.warm_up_turns, sizes.patience_s)
        return Measured(
            name=way.name,
            durable=way.durable,
            alone=[await _alone(http, way, sizes.alone_turns, sizes.patience_s) for _ in range(sizes.rounds)],
            idle_bytes=await _idle(http, server, way, sizes) if way.keeps else None,
            overhead=await _together(http, way, sizes),
            flow=await _flow(http, server, way, sizes),
        )


async def _alone(http: aiohttp.ClientSession, way: Way, turns: int, patience_s: float) -> list[float]:
    """One turn after the other, nothing beside them: the milliseconds to the first token of each."""
    until, firsts = time.monotonic() + patience_s, list[float]()
    async with _opened(http, way, 1, pace_s=0) as (conversation,):
        while len(firsts) < turns and time.monotonic() < until:
            turn = await _patiently(partial(conversation.turn, _unheard))
            firsts.append(1000 * turn.first_s)
    return firsts


# -- many at once


async def _together(http: aiohttp.ClientSession, way: Way, sizes: Sizes) -> list[float]:
    """Each asks again as soon as it is answered. They begin evenly spread over one reply, so that nobody's
    replies march in step."""
    spread_s = len(TOKENS) * sizes.pace_s / sizes.together
    async with _opened(http, way, sizes.together, sizes.pace_s) as conversations:
        asking = [
            _asking(conversation, number * spread_s, sizes.together_turns)
            for number, conversation in enumerate(conversations)
        ]
        turns = [turn for asked in await asyncio.gather(*asking) for turn in asked]
    return [1000 * (turn.first_s - turn.engine_s) for turn in turns]


async def _asking(conversation: Conversation, after_s: float, turns: int) -> list[Turn]:
    """The first one finds everything cold, and isn't counted."""
    await asyncio.sleep(after_s)
    return [await _patiently(partial(conversation.turn, _unheard)) for _ in range(1 + turns)][1:]


class _Count:
    def __init__(self) -> None:
        self.tokens = 0
        self.turned_away = 0

    def hear(self, tokens: int) -> None:
        self.tokens += tokens


async def _flow(http: aiohttp.ClientSession, server: Server, way: Way, sizes: Sizes) -> Flow:
    """Replies as fast as they are read, so many at any time."""
    count = _Count()
    async with _opened(http, way, sizes.streams, pace_s=0) as conversations:
        asking = [asyncio.create_task(_on_and_on(conversation, count)) for conversation in conversations]
        try:
            await _unbroken(asking, sizes.warm_up_s)
            return await _window(asking, server.processes(), count, sizes.window_s)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


async def _window(
    asking: Sequence[asyncio.Task[None]], processes: Sequence[psutil.Process], count: _Count, window_s: float
) -> Flow:
    began, ours, theirs = time.perf_counter(), time.process_time(), cpu_s(processes)
    tokens, turned_away = count.tokens, count.turned_away
    await _unbroken(asking, window_s)
    took_s = time.perf_counter() - began
    return Flow(
        tokens_per_s=(count.tokens - tokens) / took_s,
        client_cores=(time.process_time() - ours) / took_s,
        server_cores=(cpu_s(processes) - theirs) / took_s,
        turned_away_per_s=(count.turned_away - turned_away) / took_s,
    )


async def _unbroken(asking: Sequence[asyncio.Task[None]], seconds: float) -> None:
    """Lets them ask. Raises what one of them has raised."""
    done, _ = await asyncio.wait(asking, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


async def _on_and_on(conversation: Conversation, count: _Count) -> None:
    while True:
        try:
            await conversation.turn(count.hear)
        except Busy as busy:
            count.turned_away += 1
            await asyncio.sleep(busy.retry_after_s)


# -- none at all


async def _idle(http: aiohttp.ClientSession, server: Server, way: Way, sizes: Sizes) -> float:
    """Bytes of a conversation that has had one turn and is open; those of the server before are not counted."""
    number = min(sizes.idle, way.conversations_max // 2)
    before = memory(server.processes())
    async with _opened(http, way, number, pace_s=0) as conversations:
        await _gently([partial(conversation.turn, _unheard) for conversation in conversations])
        return (memory(server.processes()) - before) / number


# -- opening


@asynccontextmanager
async def _opened(
    http: aiohttp.ClientSession, way: Way, replies: int, pace_s: float
) -> AsyncGenerator[Sequence[Conversation]]:
    """A conversation for each of the replies; the same one for several where there may not be as many."""
    number = min(replies, way.conversations_max)
    conversations = await _gently([partial(way.open, http, pace_s) for _ in range(number)])
    try:
        yield [conversations[at % number] for at in range(replies)]
    finally:
        await asyncio.gather(*(conversation.close() for conversation in conversations))


async def _gently(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """All of them, a few at once."""
    turnstile = asyncio.Semaphore(OPENING_AT_ONCE)

    async def through(call: Callable[[], Awaitable[T]]) -> T:
        async with turnstile:
            return await _patiently(call)

    return list(await asyncio.gather(*map(through, calls)))


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Again when it is turned away, after the time that it is given."""
    while True:
        try:
            return await call()
        except Busy as busy:
            await asyncio.sleep(busy.retry_after_s)


def _unheard(tokens: int) -> None:
    """Nobody counts."""
