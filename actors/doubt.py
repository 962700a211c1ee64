"""Whether an activation may be behind the record.

What it writes is fenced by the journal. What it answers from memory is not: while processes disagree
about who is in the fleet, another host may have written for an actor that is awake here. So until that
has settled, an activation looks into the journal before it answers or shows anything.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from actors.lease import Lease
from actors.roster import Roster
from flotilla.core.clock import Clock
from flotilla.core.errors import Conflict

if TYPE_CHECKING:
    from actors.activation import Activation

# As long as two processes may see the fleet differently: a beat is kept for 3 s, read within 1, and a
# suspicion lasts 3 more (actors.roster, actors.lease).
SETTLES_IN_S = 7.0
# What was read so lately needs no second look.
FRESH_S = 0.002


class Doubt:
    """`lease` is None where nobody can take this process for dead."""

    def __init__(self, roster: Roster, clock: Clock, lease: Lease | None = None) -> None:
        self._roster = roster
        self._clock = clock
        self._lease = lease

    def about(self, at: Activation, now: float) -> bool:
        """At `now`, monotonic seconds."""
        return at.verified_at < self.settled_at(now) and now - at.verified_at > FRESH_S

    def settled_at(self, now: float) -> float:
        """What was verified since then stays true for as long as nothing changes."""
        if self._lease is None:
            return self._roster.changed_at + SETTLES_IN_S
        if not self._lease.valid(now):
            return math.inf
        return max(self._roster.changed_at, self._lease.regained_at) + SETTLES_IN_S


async def verify(at: Activation) -> None:
    """Raises `Conflict` if there is more in the journal than the activation knows."""
    runtime = at.host.runtime
    looked_at = runtime.clock.monotonic()
    if await runtime.journal.read(at.id, after=at.recorded, limit=1):
        raise Conflict("Another host has written to this actor's journal.")
    at.verified_at = looked_at
