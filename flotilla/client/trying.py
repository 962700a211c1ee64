"""When to try again, and when not to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from random import Random
from typing import Protocol

from flotilla.core.clock import Clock
from flotilla.core.errors import BudgetSpent, DeadlinePassed, FlotillaError, LimitReached, Unauthenticated
from flotilla.core.policy.retry import Patience, passes, pause_after, pauses

OnRetry = Callable[[FlotillaError], None]
"""Is told each error behind which something is tried again."""


def untold(_: FlotillaError) -> None: ...


def helps(error: FlotillaError) -> bool:
    """Whether another try may help: the fleet was down or slow, or shed load, or we were over a limit."""
    return passes(error) or (
        isinstance(error, LimitReached | DeadlinePassed) and not isinstance(error, BudgetSpent)
    )


class Shown(Protocol):
    """What is shown at the door: `flotilla.client.credential`."""

    value: str

    async def another(self, than: str) -> bool: ...


class Trying:
    """One thing that is tried until it works. Each success in between gives it all of its patience back.

    Who is turned away with a visitor's token, which is `shown`, comes again with another one."""

    def __init__(
        self,
        patience: Patience,
        clock: Clock,
        random: Random,
        shown: Shown | None = None,
        dead_s: float = inf,
        *,
        on_retry: OnRetry = untold,
    ) -> None:
        """`dead_s`: what lasted longer than this was heard from, or it would have been noticed."""
        self._patience = patience
        self._clock = clock
        self._random = random
        self._shown = shown
        self._dead_s = dead_s
        self._on_retry = on_retry
        self._pauses: Iterator[float] = iter(())
        self._until = 0.0
        self._renewed = False
        self.tries = 0
        self.progressed()
        self._begin()

    def progressed(self) -> None:
        self._pauses = pauses(self._patience, self._random)
        self._until = self._clock.monotonic() + self._patience.most_s
        self._renewed = False

    def _begin(self) -> None:
        """Of a try."""
        self._began = self._clock.monotonic()
        self._with = self._shown.value if self._shown else ""

    async def come_back(self, error: FlotillaError) -> None:
        """`pause`, behind a connection: one that stood for long was progress, however quiet it was."""
        if self._clock.monotonic() - self._began > self._dead_s:
            self.progressed()
        await self.pause(error)

    async def pause(self, error: FlotillaError) -> None:
        """Waits for the time of the next try. Raises `error` if there is to be none."""
        if isinstance(error, Unauthenticated):
            await self._renew(error)
        else:
            await self._wait(error)
        self._begin()

    async def _renew(self, error: Unauthenticated) -> None:
        """Once, unless others have got another token meanwhile. Raises `error` if there is none."""
        if self._shown is None or (self._renewed and self._shown.value == self._with):
            raise error
        self._renewed = True
        if not await self._shown.another(self._with):
            raise error

    async def _wait(self, error: FlotillaError) -> None:
        pause_s = next(self._pauses, None)
        if pause_s is None or not helps(error):
            raise error
        pause_s = pause_after(error, pause_s)
        if self._clock.monotonic() + pause_s > self._until:
            raise error
        self.tries += 1
        self._on_retry(error)
        await self._clock.sleep(pause_s)
