"""How long things take, counted in a few buckets: cheap enough for every message."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

# Upper bounds in seconds: a turn in memory, one with a journal append, one behind a busy neighbour, trouble.
BOUNDS_S = (0.0001, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)


class Histogram(msgspec.Struct):
    """`counts[n]` of the observations were at most `BOUNDS_S[n]` and more than the bound before it; the last
    of them more than all bounds."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0

    def __repr__(self) -> str:
        return f"<Histogram: {sum(self.counts)} observations, {self.total_s:.3f} s>"

    def observe(self, seconds: float) -> None:
        """About 0.15 µs."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds


class Timing:
    """Of one kind at one host: messages in the mailbox, messages being handled, journals being folded."""

    __slots__ = ("activations", "turns", "waits")

    def __init__(self) -> None:
        self.waits = Histogram()
        self.turns = Histogram()
        self.activations = Histogram()
