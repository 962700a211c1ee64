"""A process's clock: virtual time, with a wall clock that may be wrong and may jump."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from simulation.loop import SimLoop
from simulation.process import Process

BEGINNING = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


class SimClock:
    """Implements `Clock`."""

    def __init__(self, loop: SimLoop, process: Process) -> None:
        self._loop = loop
        self._process = process

    def now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self._loop.time() + self._process.wall_shift_s)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
