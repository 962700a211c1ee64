"""A host's housekeeping: passivation, recovery, moving out. Each round does a bounded piece of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from itertools import islice

import psutil

from actors.activation import Activation
from actors.host import Host
from flotilla.core.errors import FlotillaError
from flotilla.core.ids import ActorId

# Looked at in a round: about a millisecond's work, so that turns don't wait for it.
LOOKED_AT_PER_ROUND = 2_000
RECOVERED_PER_ROUND = 500
VERIFIED_PER_ROUND = 100
ROUND_EVERY_S = 0.1
ROUND_LEAST_S = 1.0
# A reply under way at a draining host may end here; then it goes on elsewhere.
DRAIN_PATIENCE_S = 10.0


class Care:
    """`memory_bytes_max`: above it, the actors that were idle longest go first."""

    def __init__(self, host: Host, memory_bytes_max: int = 0) -> None:
        self._host = host
        self._runtime = host.runtime
        self._memory_bytes_max = memory_bytes_max
        self._round: Iterator[Activation] = iter(())
        self._pressed = False
        self._placement = -1
        self._round_at = -math.inf
        self._drained_since: float | None = None

    async def run(self) -> None:
        """For as long as the host lives."""
        clock, recover_at = self._runtime.clock, 0.0
        while True:
            try:
                self.look_around()
                if clock.monotonic() >= recover_at:
                    recover_at = clock.monotonic() + self._runtime.limits.recover_every_s
                    await self.recover()
            except FlotillaError as error:
                self._runtime.log.warning("housekeeping.failed", reason=error.detail)
            except Exception:  # a bug must not end the care for all the others
                self._runtime.log.exception("housekeeping.broke")
            await clock.sleep(min(ROUND_EVERY_S, self._runtime.limits.recover_every_s))

    # -- those who leave

    def look_around(self) -> int:
        """Passivates who is idle, lets go of who lives elsewhere now; returns how many went."""
        looked_at = list(islice(self._round, LOOKED_AT_PER_ROUND))
        if not looked_at and self._round_is_due():
            self._begin_round()
            looked_at = list(islice(self._round, LOOKED_AT_PER_ROUND))
        gone = [a for a in looked_at if not a.lost and self._should_go(a)]
        for activation in gone:
            activation.leave()
        self._make_sure(looked_at)
        return len(gone)

    def _make_sure(self, looked_at: list[Activation]) -> None:
        """Those who are followed must not show an old end for ever: once it has settled who owns what,
        each looks into the journal."""
        now = self._runtime.clock.monotonic()
        settled_at = self._host.doubt.settled_at(now)
        if settled_at > now:
            return
        doubtful = (a for a in looked_at if a.followers and not a.lost and a.verified_at < settled_at)
        for activation in islice(doubtful, VERIFIED_PER_ROUND):
            activation.verify()

    def _round_is_due(self) -> bool:
        """Once a second, and at once when somebody came or went: to look at a thousand actors ten times a
        second took a twentieth of a busy host."""
        placement = self._runtime.fleet.roster.version
        late = self._runtime.clock.monotonic() - self._round_at >= ROUND_LEAST_S
        return late or self._host.draining or placement != self._placement

    def _begin_round(self) -> None:
        self._round_at = self._runtime.clock.monotonic()
        self._placement = self._runtime.fleet.roster.version
        self._round = iter(list(self._host.active.values()))
        self._pressed = self._under_pressure()
        if self._host.draining and self._drained_since is None:
            self._drained_since = self._runtime.clock.monotonic()

    def _under_pressure(self) -> bool:
        if not self._memory_bytes_max:
            return len(self._host.active) > 0.9 * self._runtime.limits.activations_max
        return psutil.Process().memory_info().rss > self._memory_bytes_max

    def _should_go(self, a: Activation) -> bool:
        if not a.idle:
            return self._out_of_patience() or (a.leaving and not self._host.draining)
        if self._host.draining or not self._mine(a.id):
            return True
        idle_s = self._runtime.clock.monotonic() - a.touched
        if a.followers:
            return False
        empty = not a.recorded and idle_s > 1.0  # nobody of that name was ever there
        return empty or idle_s > a.resident.kind.limits.idle_after_s * (0.1 if self._pressed else 1.0)

    def _out_of_patience(self) -> bool:
        since = self._drained_since
        return since is not None and self._runtime.clock.monotonic() - since > DRAIN_PATIENCE_S

    def _mine(self, id: ActorId) -> bool:
        return self._host.owns(id)

    # -- those who were left

    async def recover(self) -> int:
        """Wakes the actors of ours that have work to go on with and no activation; returns how many."""
        if self._host.draining:
            return 0
        left = [id for id in await self._runtime.journal.unfinished() if id not in self._host.active]
        await self._host.start_dedicated(left)
        mine = list(islice((id for id in left if self._mine(id)), RECOVERED_PER_ROUND))
        for id in mine:
            try:
                self._host.activate(id)
            except FlotillaError as error:
                self._runtime.log.warning("actor.not_recovered", actor=str(id), reason=error.detail)
        await asyncio.sleep(0)
        return len(mine)
