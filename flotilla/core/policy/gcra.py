"""How fast is too fast: the generic cell rate algorithm, a token bucket that remembers one number.

That number is the *theoretical arrival time* (TAT): when the bucket would be full again. A token moves it
`every_s` ahead; there is one as long as that is no further ahead of now than the whole bucket. (ITU-T I.371)
"""

from __future__ import annotations

import math

import msgspec


class Quota(msgspec.Struct, frozen=True):
    """At most `burst` at once, and one more each `every_s` seconds."""

    burst: int
    every_s: float

    @property
    def window_s(self) -> float:
        """How long an empty bucket takes to be full."""
        return self.burst * self.every_s

    def share(self, parts: int) -> Quota:
        """For one of so many that can't ask each other."""
        return Quota(max(1, self.burst // parts), self.every_s * parts)


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """`retry_after_s` is 0 unless nothing was granted; `full_in_s` is how long until the bucket is full."""

    granted: int
    left: int
    retry_after_s: float
    full_in_s: float


def take(quota: Quota, tat: float, now: float, wanted: int) -> tuple[Taken, float]:
    """As many of `wanted` as there are, and the new TAT. Times in seconds of one clock."""
    filled = max(tat, now)
    there = max(0, math.floor((now + quota.window_s - filled) / quota.every_s + 1e-6))
    granted = min(wanted, there)
    after = filled + granted * quota.every_s
    wait_s = 0.0 if granted or not wanted else after + quota.every_s - quota.window_s - now
    taken = Taken(
        granted=granted, left=there - granted, retry_after_s=max(0.0, wait_s), full_in_s=after - now
    )
    return taken, after
