"""A process of the load fleet: `python -m benchmarks.load.worker`, told what to do a line at a time.

Orders come on standard input, reports go to standard output. Every order is carried out beside those before it,
so that sockets can be cut while turns are being played.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import uvloop

from benchmarks.load.book import save
from benchmarks.load.catchup import caught_up
from benchmarks.load.crowd import Crowd
from benchmarks.load.lag import Lag
from benchmarks.load.notes import Notes
from benchmarks.load.orders import (
    Begin,
    CatchUp,
    Connect,
    Cut,
    Done,
    Failed,
    Open,
    Order,
    Play,
    Recruit,
    Report,
    Stop,
    Tick,
)
from benchmarks.load.pump import Pump
from benchmarks.load.schedule import schedule

TICK_S = 1.0
FILES_SPARE = 200
NICE = -10


class Worker:
    def __init__(self, recruit: Recruit) -> None:
        self._recruit = recruit
        self._notes = Notes(time.monotonic())
        self._crowd = Crowd(recruit, self._notes)
        self._lag = Lag()

    async def run(self) -> None:
        """Until it is told to stop, or whoever tells it is gone."""
        orders = await _lines()
        _say(Done())
        self._lag.start()
        ticking = asyncio.create_task(self._tick())
        working: set[asyncio.Task[None]] = set()
        async for line in orders:
            order = msgspec.json.decode(line, type=Order)
            task = asyncio.create_task(self._carry_out(order))
            working.add(task)
            task.add_done_callback(working.discard)
            if isinstance(order, Stop):
                await task
                break
        ticking.cancel()
        for task in working:
            task.cancel()
        self._lag.stop()
        await self._crowd.close()

    async def _carry_out(self, order: Order) -> None:
        try:
            _say(await self._done(order))
        except Exception as error:
            _say(Failed(reason=f"{type(error).__name__}: {error}"))

    async def _done(self, order: Order) -> Report:
        match order:
            case Open():
                await self._crowd.open_sessions()
                gc.collect()
                gc.freeze()
                gc.set_threshold(200_000, 50, 1000)  # what lives long is frozen, and little is made in cycles
            case Begin(at=at):
                self._notes.began = at
            case Connect(per_s=per_s):
                await self._crowd.connect(per_s)
            case Play():
                return await self._play(order)
            case Cut(at=at, sockets=sockets, within_s=within_s):
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                back, missing = await self._crowd.cut(sockets, within_s)
                return Done(milliseconds=back, missing=missing)
            case CatchUp():
                return Done(milliseconds=await caught_up(self._crowd, order))
            case Stop():
                await self._stop(order)
        return Done()

    async def _play(self, play: Play) -> Report:
        recruit = self._recruit
        whole = schedule(recruit.scenario, recruit.seed, play.part, play.seconds, play.load)
        turns = whole.of_worker(recruit.worker, recruit.workers)
        pump = Pump(self._crowd, self._lag, play, turns, name=f"{recruit.run}-{play.part}")
        return await pump.run(recruit.scenario.slo.first_ms / 1000)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            counted = msgspec.convert(self._crowd.watch.taken(), dict)
            lag_ms, cpu_share = self._lag.recent_ms(), self._lag.cpu_share()
            _say(Tick(open=self._crowd.open, lag_ms=lag_ms, cpu_share=cpu_share, **counted))

    async def _stop(self, order: Stop) -> None:
        await self._crowd.drain(order.drain_s)
        notes, folder, number = self._notes, Path(order.folder), self._recruit.worker
        save(folder / f"turns-{number}.npz", notes.turns())
        save(folder / f"gaps-{number}.npz", notes.gaps())
        lags = {"sends": np.array(self._lag.sends), "delays": np.array(self._lag.delays)}
        save(folder / f"lags-{number}.npz", lags)
        told = {
            "errors": dict(notes.errors),
            "kept": notes.errors_kept,
            "counts": dict(notes.counts),
            "marks": notes.marks,
            "cpu_share_max": self._lag.cpu_share_max,
        }
        (folder / f"told-{number}.json").write_bytes(msgspec.json.encode(told))


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=2**20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _say(report: Report) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def many_files(number: int) -> None:
    """Raises the limit of open files to what so many sockets need, if this process may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + FILES_SPARE
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def ahead_of_others() -> None:
    """A customer's device shares no core with the fleet; here the load fleet does, and takes a tenth of one.
    It goes first where it may, lest its own waiting be counted as the fleet's."""
    with contextlib.suppress(OSError):
        os.nice(NICE)


def main() -> None:
    recruit = msgspec.json.decode(sys.stdin.buffer.readline(), type=Recruit)
    many_files(recruit.scenario.conversations)
    ahead_of_others()
    uvloop.run(Worker(recruit).run())


if __name__ == "__main__":
    main()
