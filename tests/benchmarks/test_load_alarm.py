"""The load fleet's own timer."""

from __future__ import annotations

import asyncio
import time

from benchmarks.load.alarm import Alarm


async def test_it_rings_at_its_time_and_never_before() -> None:
    rang: asyncio.Queue[float] = asyncio.Queue()
    alarm = Alarm(lambda: rang.put_nowait(time.monotonic()))
    for in_s in (0.0123, 0.0004, 0.0):
        at = time.monotonic() + in_s
        alarm.set(at)
        assert await rang.get() >= at
    alarm.close()


async def test_the_last_time_that_was_set_counts() -> None:
    rang: asyncio.Queue[float] = asyncio.Queue()
    alarm = Alarm(lambda: rang.put_nowait(time.monotonic()))
    began = time.monotonic()
    alarm.set(began + 3600)
    alarm.set(began + 0.001)
    assert await rang.get() < began + 3600
    assert rang.empty()
    alarm.close()
    alarm.close()
