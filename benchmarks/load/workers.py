"""The worker processes, from outside: orders to them, reports from them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from benchmarks.load.orders import Done, Failed, Order, Played, Recruit, Report, Tick

ROOT = Path(__file__).parents[2]
LINE_BYTES_MAX = 2**26
Answer = TypeVar("Answer", Done, Played)


class Broken(Exception):
    """A worker can't go on; says why."""


class Worker:
    """`ticked` hears of its last second, every second."""

    def __init__(self, process: Process, ticked: Callable[[Tick], None]) -> None:
        self._process = process
        self._ticked = ticked
        self._answers: dict[type[Report], asyncio.Queue[Report | None]] = {
            Done: asyncio.Queue(),
            Played: asyncio.Queue(),
        }
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(cls, recruit: Recruit, ticked: Callable[[int, Tick], None]) -> Worker:
        """Raises `Broken` if it does not come up."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks.load.worker",
            stdin=PIPE,
            stdout=PIPE,
            cwd=ROOT,
            limit=LINE_BYTES_MAX,
        )
        worker = cls(process, lambda tick: ticked(recruit.worker, tick))
        worker._write(msgspec.json.encode(recruit))
        await worker.answer(Done)
        return worker

    def tell(self, order: Order) -> None:
        self._write(msgspec.json.encode(order))

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")

    async def answer(self, kind: type[Answer]) -> Answer:
        """The next report of this kind. Raises `Broken`."""
        report = await self._answers[kind].get()
        if report is None:
            raise Broken("A worker ended before its time.")
        if isinstance(report, Failed):
            raise Broken(report.reason)
        assert isinstance(report, kind)
        return report

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            report = msgspec.json.decode(line, type=Report)
            self._take(report)
        self._take(None)

    def _take(self, report: Report | None) -> None:
        """Whatever ends the worker is told to everyone who waits for it."""
        if isinstance(report, Tick):
            self._ticked(report)
        elif isinstance(report, Done | Played):
            self._answers[type(report)].put_nowait(report)
        else:
            for answers in self._answers.values():
                answers.put_nowait(report)

    async def end(self) -> None:
        """It ends by itself when nobody can tell it anything any more."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._reading


class Workers:
    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = list(workers)

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self.workers]

    async def all(self, order: Order) -> list[Done]:
        """Tells all of them, and waits until all have done it. Raises `Broken`."""
        for worker in self.workers:
            worker.tell(order)
        return list(await asyncio.gather(*(worker.answer(Done) for worker in self.workers)))

    async def first(self, order: Order) -> Done:
        self.workers[0].tell(order)
        return await self.workers[0].answer(Done)

    async def play(self, order: Order) -> Played:
        """What came of it, all of them together."""
        for worker in self.workers:
            worker.tell(order)
        played = await asyncio.gather(*(worker.answer(Played) for worker in self.workers))
        return Played(
            due=sum(p.due for p in played),
            good=sum(p.good for p in played),
            failed=sum(p.failed for p in played),
        )

    async def end(self) -> None:
        await asyncio.gather(*(worker.end() for worker in self.workers))
