"""Refusing near by what would be refused far away: a refusal that costs no hop leaves the overloaded alone.

Beyer et al., "Site Reliability Engineering", 2016, chapter 21, "Client-side throttling": as many are sent as
are accepted, times a factor that lets it show when things are better.
"""

from __future__ import annotations

from collections import OrderedDict

SENT_PER_ACCEPTED = 1.5
# Of fewer there is nothing to conclude.
ASKED_LEAST = 10.0
HALF_LIFE_S = 1.0
KEPT_MAX = 10_000


class _Seen:
    """Decaying counts. Those that were refused here count as asked."""

    __slots__ = ("accepted", "asked", "at")

    def __init__(self, now: float) -> None:
        self.asked = self.accepted = 0.0
        self.at = now

    def age(self, now: float) -> None:
        left = 0.5 ** ((now - self.at) / HALF_LIFE_S)
        self.asked, self.accepted, self.at = self.asked * left, self.accepted * left, now


class Throttle:
    """By whatever is refused together: a tenant at a host."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Throttle of {len(self._seen)}>"

    def share(self, key: str, now: float) -> float:
        """Of those like it that are asked now, how many shouldn't be sent."""
        seen = self._of(key, now)
        if seen.asked < ASKED_LEAST:
            return 0.0
        return max(0.0, (seen.asked - SENT_PER_ACCEPTED * seen.accepted) / (seen.asked + 1))

    def asked(self, key: str, now: float) -> None:
        """Whether it was sent or not."""
        self._of(key, now).asked += 1

    def accepted(self, key: str, now: float) -> None:
        self._of(key, now).accepted += 1

    def _of(self, key: str, now: float) -> _Seen:
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = _Seen(now)
            if len(self._seen) > KEPT_MAX:
                self._seen.popitem(last=False)
        self._seen.move_to_end(key)
        seen.age(now)
        return seen
