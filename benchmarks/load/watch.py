"""Counts what becomes of turns while they run, for the screen and for the knee."""

from __future__ import annotations

from benchmarks.load.notes import COMPLETED, SHED, Turn


class Watch:
    """`good` and `failed` are of the turns that were due since `since`; the others since they were last taken."""

    def __init__(self, slo_s: float) -> None:
        self._slo_s = slo_s
        self.since = 0.0
        self.good = self.failed = 0
        self.first_ms: list[float] = []
        self.sent = self.completed = self.shed = self.errors = 0

    def begin(self, at: float) -> None:
        """A phase, or a step of one, begins at this moment of the clock."""
        self.since, self.good, self.failed = at, 0, 0

    def first(self, turn: Turn) -> None:
        late = turn.first - turn.intended
        self.first_ms.append(late * 1000)
        if turn.intended >= self.since and late <= self._slo_s:
            self.good += 1

    def over(self, turn: Turn) -> None:
        """Where a way shows no first token, a reply that has come is good."""
        done, mine = turn.outcome == COMPLETED, turn.intended >= self.since
        self.completed += done
        self.shed += turn.outcome == SHED
        self.errors += not done and turn.outcome != SHED
        self.failed += mine and not done
        self.good += mine and done and not turn.first

    def taken(self) -> dict[str, int | list[float]]:
        """What has come since this was asked last."""
        found: dict[str, int | list[float]] = {
            "sent": self.sent,
            "completed": self.completed,
            "shed": self.shed,
            "errors": self.errors,
            "first_ms": self.first_ms,
        }
        self.sent = self.completed = self.shed = self.errors = 0
        self.first_ms = []
        return found
