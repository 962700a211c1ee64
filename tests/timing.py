"""Time in tests that share their machine: how to wait for what comes, and how to measure what is fast."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PATIENCE_S = 30.0
"""Costs nothing where all is well: the machine may be busy with something else for seconds."""

AT_ONCE_S = 5.0
"""Less than any patience of ours, and more than a busy machine adds."""

TRIES = 20


async def until(true: Callable[[], object], pause_s: float = 0.001) -> None:
    """Returns once `true()`, which other tasks make so."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(pause_s)


async def within(seconds: float, measure: Callable[[], Awaitable[float]]) -> None:
    """Passes once `measure` returns less than `seconds`. A busy machine makes code slower and never faster: one
    try in time shows what the code can do, and code that is too slow fails every try."""
    took: list[float] = []
    while len(took) < TRIES:
        took.append(await measure())
        if took[-1] < seconds:
            return
    raise AssertionError(f"None of {TRIES} tries took less than {seconds} s: {took}")
