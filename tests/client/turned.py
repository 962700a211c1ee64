"""A clock that stands until a test turns it; pauses of less than a second pass by themselves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime


class Turned:
    def __init__(self) -> None:
        self.time = 0.0
        self._sleeping: list[tuple[float, asyncio.Event]] = []

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, UTC)

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        if seconds < 1.0:
            return await asyncio.sleep(0)
        alarm = asyncio.Event()
        self._sleeping.append((self.time + seconds, alarm))
        await alarm.wait()
        return None

    def turn(self, seconds: float) -> None:
        self.time += seconds
        due = [entry for entry in self._sleeping if entry[0] <= self.time]
        self._sleeping = [entry for entry in self._sleeping if entry[0] > self.time]
        for _, alarm in due:
            alarm.set()

    @property
    def sleeping(self) -> list[float]:
        """In how many seconds each sleeper is to wake."""
        return [at - self.time for at, _ in self._sleeping]
