"""When to refuse new work: once what was let in stands in a queue, and until it moves again.

A queue that is empty now and then does no harm, however long it gets between; one that never is makes
everybody wait and nobody faster. So what counts is the *smallest* wait of an interval (Nichols and Jacobson,
"Controlling Queue Delay", 2012). What is bounded by it is how many may wait: by Little's law that bounds how
long they do, whatever comes. The bound falls by a factor and grows by a share, as in TCP; with a
refused *share* in its place, each reply to a wave would be the next wave.

Who has much waiting is refused before who has little: each may have some times what is left of the
bound (Choudhury and Hahne, "Dynamic Queue Length Thresholds", 1998). That leaves room for the next one,
and gives those who would take it all the same.

Nothing here reads a clock: whoever uses it says how much time has passed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from random import Random

import msgspec

from flotilla.core.errors import Overloaded

RETRY_LEAST_S, RETRY_MOST_S = 1.0, 30.0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How the bound follows. Shares are of the bound, and for each tick."""

    least: int = 12
    first: int = 256
    most: int = 10_000
    # As far as the queue is too long, within these; then what has changed must show before it falls again.
    falls_to: float = 0.8
    falls_most: float = 0.5
    shows_after_s: float = 0.3
    grows_by: float = 0.04
    # What one tenant may have waiting, as a multiple of what is left of the bound.
    one_of_left: float = 4.0


class Queue:
    """The waits at one place. While nothing gets through, what waits there for longest says how long it takes."""

    def __init__(self, target_s: float) -> None:
        self.target_s = target_s
        self.standing_s = 0.0
        self._least = self._before = math.inf

    def waited(self, seconds: float) -> None:
        self._least = min(self._least, seconds)

    def close(self, oldest_s: float = 0.0) -> float:
        """Ends an interval; returns the smallest wait of the last two, as a multiple of the target.
        `oldest_s`: what has waited there for longest and has not got through."""
        least = self._least if self._least < math.inf else (oldest_s or math.inf)
        both = min(self._before, least)
        self._before, self._least = least, math.inf
        self.standing_s = both if both < math.inf else 0.0
        return self.standing_s / self.target_s


class Shedding:
    """`targets_s` names the queues, and how long a wait at each may stand. Without any, all is let in.

    What is let in waits from `enter` on until it is `through`."""

    def __init__(
        self, targets_s: Mapping[str, float], *, terms: Terms | None = None, chance: Random | None = None
    ) -> None:
        self._queues = {name: Queue(target_s) for name, target_s in targets_s.items()}
        self._terms = terms or Terms()
        self._chance = chance or Random()
        self._waiting: Counter[str] = Counter()  # by tenant
        self._peak = 0
        self._asked = self._refused = 0.0  # lately: forgotten by and by
        self._held_s = 0.0
        self.limit = float(self._terms.first)
        self.waiting = 0
        self.reason = "waiting"  # the queue that was last over its target
        self.counts: Counter[str] = Counter()  # of refusals, by reason

    def __repr__(self) -> str:
        return f"<Shedding: {self.waiting} of {self.limit:.0f} wait, {self.refused:.0%} refused>"

    @property
    def refused(self) -> float:
        """The share of what was asked lately."""
        return self._refused / self._asked if self._asked else 0.0

    @property
    def standing_s(self) -> dict[str, float]:
        """How long a wait stands in each queue."""
        return {name: queue.standing_s for name, queue in self._queues.items()}

    # -- what is measured

    def waited(self, queue: str, seconds: float) -> None:
        """Something got through `queue` after so long. About 0.2 µs."""
        if (known := self._queues.get(queue)) is not None:
            known.waited(seconds)

    def tick(self, seconds: float, oldest_s: Mapping[str, float] | None = None) -> None:
        """So much time has passed: looks at what was measured in it. `oldest_s`: see `Queue.close`."""
        oldest_s = oldest_s or {}
        found = {name: queue.close(oldest_s.get(name, 0.0)) for name, queue in self._queues.items()}
        worst = max(found, key=lambda name: found[name], default="")
        self._held_s = max(0.0, self._held_s - seconds)
        if worst and found[worst] > 1:
            self.reason = worst
            self._fall(found[worst])
        else:
            self._grow()
        self._peak = self.waiting
        self._asked, self._refused = 0.9 * self._asked, 0.9 * self._refused

    def _fall(self, pressure: float) -> None:
        if self._held_s:
            return
        terms = self._terms
        reached = min(self.limit, max(self._peak, terms.least))
        factor = max(terms.falls_most, min(terms.falls_to, 1 / pressure))
        self.limit = max(terms.least, reached * factor)
        self._held_s = max(terms.shows_after_s, 2 * self._queues[self.reason].standing_s)

    def _grow(self) -> None:
        """Not beyond what anybody has tried: a bound that means nothing helps nobody when the wave comes."""
        terms = self._terms
        if self.limit < terms.first or self._peak > self.limit / 2:
            self.limit = min(terms.most, self.limit + max(1.0, terms.grows_by * self.limit))

    # -- what is let in

    def check(self, tenant: str) -> None:
        """Counts what is asked. Raises `Overloaded` if there is no room for it; about 10 µs then, 1 µs else."""
        if not self._queues:
            return
        self._asked += 1
        if not self._has_room(self._waiting.get(tenant, 0)):
            self._refused += 1
            self.counts[self.reason] += 1
            raise self.refusal()

    def _has_room(self, theirs: int) -> bool:
        """Whoever stays within an equal share gets in also where others have taken more than all; those who do
        so have no more than the bound again."""
        tenants = len(self._waiting) + (not theirs)
        if tenants > 1 and (theirs + 1) * tenants <= self.limit:
            return True
        return theirs < self._terms.one_of_left * (self.limit - self.waiting)

    def enter(self, tenant: str) -> None:
        """It was let in, and waits."""
        self._waiting[tenant] += 1
        self.waiting += 1
        self._peak = max(self._peak, self.waiting)

    def through(self, tenant: str) -> None:
        """It waits no more."""
        if self._waiting[tenant] <= 1:
            del self._waiting[tenant]
        else:
            self._waiting[tenant] -= 1
        self.waiting -= 1

    def refusal(self, reason: str = "") -> Overloaded:
        """`reason` is where it waits, if that is none of these queues."""
        return Overloaded(
            f"What was let in waits, and new work with it ({reason or self.reason}).",
            next="Nothing was accepted. Send it again after the time that is given.",
            retry_after_s=self._retry_after_s(),
        )

    def _retry_after_s(self) -> float:
        """About as many seconds as it takes tries to get in; not the same for all, or they would all come
        back together."""
        tries = 1 / max(0.05, 1 - self.refused)
        seconds = tries + max(self.standing_s.values(), default=0.0)
        return round(min(RETRY_MOST_S, max(RETRY_LEAST_S, seconds * self._chance.uniform(0.75, 1.5))), 2)
