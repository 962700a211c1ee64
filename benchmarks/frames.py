"""One frame for all that an engine step made, or one for each of its streams: part of `benchmarks.replicas`.

Asked because the link makes frames of small items by itself: whether the engine could make them cheaper still.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import msgspec
import numpy as np

from actors.link import Link, Listener, connect
from benchmarks.report import Result
from flotilla.core.generation import Piece

TOKEN = "benchmark"


class Steps:
    """An engine whose steps make a piece for each of its streams."""

    def __init__(self, streams: int, steps: int) -> None:
        self.streams, self.steps = streams, steps
        self._waiting: list[asyncio.Future[None]] = []
        self._batch: list[tuple[int, bytes]] = []

    async def stream(self) -> AsyncGenerator[bytes]:
        for _ in range(self.steps):
            step: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(step)
            if len(self._waiting) == self.streams:
                asyncio.get_running_loop().call_soon(self._step)
            await step
            yield msgspec.msgpack.encode(Piece(text=" word"))

    def _step(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.set_result(None)

    async def apart(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        async for item in self.stream():
            yield item

    async def together(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        """The same streams, but what they make leaves in one item."""
        tasks = [asyncio.ensure_future(self._collect(n)) for n in range(self.streams)]
        for _ in range(self.steps):
            while len(self._batch) < self.streams:
                await asyncio.sleep(0)
            batch, self._batch = self._batch, []
            yield msgspec.msgpack.encode(batch)
        await asyncio.gather(*tasks)

    async def _collect(self, number: int) -> None:
        async for item in self.stream():
            self._batch.append((number, item))


async def cpu_of(streams: int, steps: int, *, together: bool) -> float:
    """Microseconds of both ends for a piece."""
    engine = Steps(streams, steps)
    listener = Listener(engine.together if together else engine.apart, TOKEN)
    link = await connect(await listener.start(), TOKEN)
    began = time.process_time()
    await (_read_together(link, streams) if together else _read_apart(link, streams))
    taken = time.process_time() - began
    await link.aclose()
    await listener.aclose()
    return 1e6 * taken / (streams * steps)


async def _read_apart(link: Link, streams: int) -> None:
    async def read() -> None:
        async for item in link.call("generate", b""):
            msgspec.msgpack.decode(item, type=Piece)

    await asyncio.gather(*(read() for _ in range(streams)))


async def _read_together(link: Link, streams: int) -> None:
    queues = [asyncio.Queue[bytes | None]() for _ in range(streams)]

    async def read(queue: asyncio.Queue[bytes | None]) -> None:
        while (item := await queue.get()) is not None:
            msgspec.msgpack.decode(item, type=Piece)

    readers = [asyncio.ensure_future(read(queue)) for queue in queues]
    async for batch in link.call("generate", b""):
        for number, item in msgspec.msgpack.decode(batch, type=list[tuple[int, bytes]]):
            queues[number].put_nowait(item)
    for queue in queues:
        queue.put_nowait(None)
    await asyncio.gather(*readers)


async def frames(streams: int, steps: int, rounds: int) -> Result:
    apart, together = list[float](), list[float]()
    for _ in range(rounds):
        apart.append(await cpu_of(streams, steps, together=False))
        together.append(await cpu_of(streams, steps, together=True))
    return Result(
        measure=f"frame_per_stream_{streams}_cpu_us_per_piece",
        value=round(float(np.median(apart)), 2),
        unit="us",
        better="lower",
        peer="frame_per_step",
        peer_value=round(float(np.median(together)), 2),
        samples=rounds,
        spread=round((max(apart) - min(apart)) / float(np.median(apart)), 3),
    )
