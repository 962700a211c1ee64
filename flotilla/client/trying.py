"""When to try again, and when not to."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from flotilla.core.clock import Clock
from flotilla.core.errors import BudgetSpent, DeadlinePassed, FlotillaError, LimitReached
from flotilla.core.policy.retry import Patience, passes, pause_after, pauses


def helps(error: FlotillaError) -> bool:
    """Whether another try may help: the fleet was down or slow, or shed load, or we were over a limit."""
    return passes(error) or (
        isinstance(error, LimitReached | DeadlinePassed) and not isinstance(error, BudgetSpent)
    )


class Trying:
    """One thing that is tried until it works. Each success in between gives it all of its patience back."""

    def __init__(self, patience: Patience, clock: Clock, random: Random) -> None:
        self._patience = patience
        self._clock = clock
        self._random = random
        self._pauses: Iterator[float] = iter(())
        self._until = 0.0
        self.tries = 0
        self.progressed()

    def progressed(self) -> None:
        self._pauses = pauses(self._patience, self._random)
        self._until = self._clock.monotonic() + self._patience.most_s

    async def pause(self, error: FlotillaError) -> None:
        """Waits for the time of the next try. Raises `error` if there is to be none."""
        pause_s = next(self._pauses, None)
        if pause_s is None or not helps(error):
            raise error
        pause_s = pause_after(error, pause_s)
        if self._clock.monotonic() + pause_s > self._until:
            raise error
        self.tries += 1
        await self._clock.sleep(pause_s)
