"""Looking again and again: through failures, and no further than a bug."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from actors.looking import keep_looking
from flotilla.core.errors import FlotillaError, Unavailable


class Instant:
    """Implements `Clock`; a sleep is over at once, and remembered."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


async def test_what_fails_is_told_and_looked_at_again_until_a_bug_shows() -> None:
    clock, told = Instant(), list[FlotillaError]()
    down = Unavailable("The store is down.", retry_after_s=1.0)
    outcomes = iter((None, down, down, None, ZeroDivisionError()))

    async def look() -> None:
        if (outcome := next(outcomes)) is not None:
            raise outcome

    with pytest.raises(ZeroDivisionError):
        await keep_looking(look, 2.5, clock, told.append)
    assert told == [down, down]
    assert clock.slept == [2.5] * 4
