"""What this process counts of the replies that it asked for: what the swap watches, and what hedging goes by."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Collection, Mapping

from flotilla.core.tallies import SHADOW, Tallies, Tally

RECENT_MAX = 200
RECENT_MIN = 20  # fewer say nothing about the slowest twentieth
# A reply that broke off is under way until its caller has come back for the rest.
BROKEN_OFF_S = 5.0


class Counts:
    def __init__(self) -> None:
        self.tallies: Tallies = {}
        self._recent: dict[str, Recent] = {}

    def of(self, id: str) -> Tally:
        return self.tallies.setdefault(id, Tally())

    def begun(self, id: str, first_token_ms: float) -> None:
        self._recent.setdefault(id, Recent()).add(first_token_ms)

    def broken_off(self, id: str) -> None:
        """In place of taking one off `running`: that is done a little later."""
        asyncio.get_running_loop().call_later(BROKEN_OFF_S, self.left, id)

    def left(self, id: str) -> None:
        self.of(id).running -= 1

    def p95_ms(self, id: str) -> float | None:
        """Of the last replies' first tokens; None if there were too few."""
        recent = self._recent.get(id)
        return recent.p95() if recent else None

    def held(self, counted: Mapping[str, int]) -> None:
        """By how many each version is held now."""
        for id in (*counted, *self.tallies):
            self.of(id).held = counted.get(id, 0)

    def prune(self, known: Collection[str]) -> None:
        """Forgets versions that are in no plan, answer nobody and are held by nobody."""
        for id, tally in list(self.tallies.items()):
            if id.removeprefix(SHADOW) not in known and not (tally.running or tally.held):
                del self.tallies[id]
                self._recent.pop(id, None)


class Recent:
    """The last `RECENT_MAX` times; the quantile is worked out again after each tenth of them."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=RECENT_MAX)
        self._added = 0
        self._p95: float | None = None

    def add(self, ms: float) -> None:
        self._times.append(ms)
        self._added += 1
        if self._added % (RECENT_MIN // 2) == 0:
            self._p95 = None

    def p95(self) -> float | None:
        if len(self._times) < RECENT_MIN:
            return None
        if self._p95 is None:
            self._p95 = sorted(self._times)[math.ceil(0.95 * len(self._times)) - 1]
        return self._p95


class HedgeBudget:
    """At most `share` of the requests so far are asked twice; what was not spent is kept up to `kept_max`."""

    def __init__(self, share: float = 0.05, kept_max: float = 10.0) -> None:
        self.share = share
        self.asked = 0
        self.hedged = 0
        self._kept_max = kept_max
        self._credit = 0.0

    def __repr__(self) -> str:
        return f"<HedgeBudget: {self.hedged} of {self.asked}>"

    def request(self) -> None:
        self.asked += 1
        self._credit = min(self._kept_max, self._credit + self.share)

    def take(self) -> bool:
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        self.hedged += 1
        return True
