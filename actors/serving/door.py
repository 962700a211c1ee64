"""Lets requests in, and is closed while what is behind it is being changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from flotilla.core.clock import Clock
from flotilla.core.errors import Overloaded, Unavailable
from flotilla.core.limits import LIMITS

WAIT_MAX_S = 30.0
RETRY_AFTER_S = 1.0

T = TypeVar("T")


class Door:
    """While it is closed at most `waiting_max` wait before it, each for at most `wait_max_s`."""

    def __init__(
        self,
        clock: Clock,
        *,
        waiting_max: int = LIMITS.door_waiting_max,
        wait_max_s: float = WAIT_MAX_S,
    ) -> None:
        self._clock = clock
        self._waiting_max = waiting_max
        self._wait_max_s = wait_max_s
        self._opened = asyncio.Event()
        self._opened.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.inside = 0
        self.waiting = 0
        self.closed_at: float | None = None  # monotonic seconds

    def __repr__(self) -> str:
        state = "open" if self.closed_at is None else "closed"
        return f"<Door, {state}: {self.inside} inside, {self.waiting} wait>"

    @asynccontextmanager
    async def entered(self) -> AsyncGenerator[None]:
        """Raises `Overloaded` if too many wait already, or if it stays closed for too long."""
        while self.closed_at is not None:
            await self._wait()
        self.inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self.inside -= 1
            if not self.inside:
                self._empty.set()

    async def _wait(self) -> None:
        if self.waiting >= self._waiting_max:
            raise Overloaded(
                f"{self.waiting} prompts wait for weights to be swapped.", retry_after_s=RETRY_AFTER_S
            )
        self.waiting += 1
        try:
            await within(self._clock, self._wait_max_s, self._opened.wait())
        except TimeoutError:
            said = f"The weights were being swapped for {self._wait_max_s:g} s."
            raise Overloaded(said, retry_after_s=RETRY_AFTER_S) from None
        finally:
            self.waiting -= 1

    async def close(self, within_s: float) -> None:
        """Lets nobody in any more, and returns when nobody is inside. Raises `Unavailable` if somebody still
        is after `within_s` seconds; then it is open again."""
        self.closed_at = self._clock.monotonic()
        self._opened.clear()
        try:
            await within(self._clock, within_s, self._empty.wait())
        except TimeoutError:
            said = f"{self.inside} replies were still being made after {within_s:g} s."
            raise Unavailable(said, next="Try again.", retry_after_s=within_s) from None
        finally:
            if self.inside:  # also when cancelled
                self.open()

    def open(self) -> None:
        self.closed_at = None
        self._opened.set()


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. Raises `TimeoutError` after so many seconds of the clock; the work is cancelled
    then."""
    task, timer = asyncio.ensure_future(work), asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()
        timer.cancel()
        await asyncio.gather(task, timer, return_exceptions=True)
