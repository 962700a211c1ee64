"""The alarm of a host: tells actors of their reminders when they are due.

What is pending stands in the record, and the alarm asks it again and again what comes next. So it
has nothing to lose: who takes over reads the same. An actor's answer takes the reminder out of the
record together with its facts; until then the reminder is delivered again, late rather than lost.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from flotilla.core import effects
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError
from flotilla.core.ids import ActorId
from flotilla.core.journal import Due
from flotilla.core.ports import Journal

LOOK_EVERY_S = 0.05  # how late a reminder can be that is set for sooner than the next look
LOOKAHEAD_S = 0.25  # known this long before, a reminder comes at its time though a look takes longer
GRAIN_S = 0.005  # those that are due within it go together
READ_MAX = 1_000  # reminders that a look finds, beyond those that are being delivered or have failed
DELIVERIES_MAX = 256  # at a time; what is due beyond them waits
FAILING_MAX = 10_000  # that a look reads past
RETRY_FIRST_S, RETRY_MAX_S = 0.1, 30.0
WARN_AFTER_TRIES = 3

Deliver = Callable[[ActorId, effects.Due], Awaitable[None]]
"""Returns once the actor has handled it and the record knows; raises to be called again later. It must
end by a deadline of its own."""
Buckets = Callable[[], Sequence[int]]
"""Those that this host is responsible for, as it believes. If two do, the record lets one of them win."""


class _Failure(msgspec.Struct, frozen=True):
    tries: int
    again_at: float  # monotonic seconds


class Alarm:
    def __init__(
        self,
        journal: Journal,
        deliver: Deliver,
        buckets: Buckets,
        clock: Clock,
        log: Any,
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._journal = journal
        self._deliver = deliver
        self._buckets = buckets
        self._clock = clock
        self._log = log
        self._look_every_s = look_every_s
        self._near: deque[Due] = deque()  # as the last look found them, earliest first
        self._in_flight: set[Due] = set()
        self._settled: set[Due] = set()  # delivered since the look began that is under way
        self._failures: dict[Due, _Failure] = {}
        self._looked_at = clock.monotonic()
        self._blind = False
        self.delivered = 0

    def __repr__(self) -> str:
        return f"<Alarm: {self.lag_s:.3f} s behind, {len(self._in_flight)} in flight, {self.failing} failing>"

    @property
    def lag_s(self) -> float:
        """How late the latest reminder is that waits or is being delivered for the first time, in
        seconds; while the record can't be read, at least how long that has been so."""
        now = self._clock.now()
        waiting = [due.at for due in self._in_flight if due not in self._failures]
        waiting += [due.at for due in self._near if due not in self._failures][:1]
        late = max(((now - at).total_seconds() for at in waiting), default=0.0)
        blind = self._clock.monotonic() - self._looked_at if self._blind else 0.0
        return max(0.0, late, blind)

    @property
    def failing(self) -> int:
        """Reminders whose delivery failed; each is tried again, ever less often."""
        return len(self._failures)

    async def run(self) -> None:
        """Until cancelled, and its deliveries with it."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            look: asyncio.Task[None] | None = None
            try:
                while True:
                    if look is None or look.done():
                        look = tasks.create_task(self._look())
                    await self._fire_for(self._look_every_s)
            finally:
                self._near.clear()  # a closing group takes no more tasks

    async def _look(self) -> None:
        """Replaces what was known: a reminder that was forgotten or moved meanwhile is not in the record."""
        self._settled.clear()
        try:
            found = await self._read()
        except FlotillaError as error:
            if not self._blind:
                self._log.warning("reminders.unread", reason=error.detail)
            self._blind = True
            return
        self._blind, self._looked_at = False, self._clock.monotonic()
        self._failures = {due: failure for due in found if (failure := self._failures.get(due))}
        self._near = deque(due for due in found if self._may_go(due))
        self._fire()

    async def _read(self) -> list[Due]:
        buckets = self._buckets()
        if not buckets:
            return []
        before = self._clock.now() + timedelta(seconds=LOOKAHEAD_S)
        known = len(self._in_flight) + min(self.failing, FAILING_MAX)
        return await self._journal.due(before, buckets, limit=READ_MAX + known)

    def _may_go(self, due: Due) -> bool:
        # Delivered while the look was under way: the look may have seen the record as it was before.
        if due in self._in_flight or due in self._settled:
            return False
        failure = self._failures.get(due)
        return failure is None or failure.again_at <= self._clock.monotonic()

    async def _fire_for(self, seconds: float) -> None:
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            self._fire()
            await self._clock.sleep(max(GRAIN_S, min(left, self._next_in_s())))

    def _next_in_s(self) -> float:
        """Until there is something to fire; a delivery that ends fires the next one itself."""
        if not self._near or len(self._in_flight) >= DELIVERIES_MAX:
            return math.inf
        return (self._near[0].at - self._clock.now()).total_seconds()

    def _fire(self) -> None:
        now = self._clock.now()
        while self._near and self._near[0].at <= now and len(self._in_flight) < DELIVERIES_MAX:
            due = self._near.popleft()
            self._in_flight.add(due)
            self._tasks.create_task(self._tell(due))

    async def _tell(self, due: Due) -> None:
        signal = effects.Due(name=due.name, at=due.at, repeat=due.repeat, all_missed=due.all_missed)
        try:
            await self._deliver(due.actor, signal)
        except Exception as error:
            self._failed(due, error)
        else:
            self.delivered += 1
            self._settled.add(due)
            self._failures.pop(due, None)
        finally:
            self._in_flight.discard(due)
        self._fire()

    def _failed(self, due: Due, error: Exception) -> None:
        known = self._failures.get(due)
        tries = known.tries + 1 if known else 1
        asked = error.retry_after_s or 0.0 if isinstance(error, FlotillaError) else 0.0
        wait = min(max(asked, RETRY_FIRST_S * 2 ** min(tries - 1, 20)), RETRY_MAX_S)
        self._failures[due] = _Failure(tries, self._clock.monotonic() + wait)
        if not isinstance(error, FlotillaError):
            self._log.error("reminder.broke", actor=str(due.actor), reminder=due.name, exc_info=error)
        elif tries == WARN_AFTER_TRIES:
            self._log.warning(
                "reminder.failing", actor=str(due.actor), reminder=due.name, reason=error.detail
            )
