"""What one process of the load fleet writes down: a row a turn, a sample of the gaps between deltas, errors, marks.

Times are seconds since the run's start (a moment of the machine's monotonic clock that all workers share).
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.load.frames import Timing

COMPLETED, SHED, ERROR, UNFINISHED, INTERRUPTED = range(5)
NEVER = float("nan")
ERRORS_KEPT = 1_000
GAPS_KEPT = 200_000

TIMES = ("intended_s", "sent_s", "accepted_s", "first_s", "last_s", "end_s")
"""`last_s` is when the last of its text came."""
COUNTS = ("characters", "deltas")
BYTES = ("outcome", "way", "phase")
TIMING = ("queued", "retrieval", "prompt", "first_token", "generation", "total", "overhead")
UNTIMED = Timing(*[NEVER] * len(TIMING))


class Turn:
    """One message and its reply, while it lasts. Times are of the monotonic clock, 0 where it did not happen."""

    __slots__ = (
        "accepted",
        "characters",
        "deltas",
        "end",
        "first",
        "gap_max",
        "held",
        "id",
        "intended",
        "last",
        "outcome",
        "phase",
        "resent",
        "sent",
        "text",
        "timing",
        "way",
    )

    def __init__(self, id: str, text: int, intended: float, phase: int, way: int) -> None:
        self.id = id
        self.text = text
        self.intended = intended
        self.phase = phase
        self.way = way
        self.sent = self.accepted = self.first = self.end = self.last = 0.0
        self.characters = self.deltas = 0
        self.gap_max = 0.0
        self.outcome = UNFINISHED
        self.held = False  # its conversation was busy or away when it was due
        self.resent = False
        self.timing: Timing | None = None


class Notes:
    """Columns, not objects: a million turns are 100 MB less."""

    def __init__(self, began: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.began = began
        self.clock = clock
        self._doubles = {name: array("d") for name in TIMES}
        self._floats = {name: array("f") for name in ("gap_max_ms", *TIMING)}
        self._counts = {name: array("i") for name in COUNTS}
        self._bytes = {name: array("B") for name in BYTES}
        self._gaps_at, self._gaps = array("d"), array("f")
        self._gaps_seen, self._every = 0, 1
        self.errors: Counter[str] = Counter()
        self.errors_kept: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.marks: list[dict[str, Any]] = []
        self.finished = 0

    @property
    def now(self) -> float:
        """Seconds since the run's start."""
        return self.clock() - self.began

    def add(self, turn: Turn) -> None:
        doubles, began = self._doubles, self.began
        doubles["intended_s"].append(turn.intended - began)
        for name, at in zip(
            TIMES[1:], (turn.sent, turn.accepted, turn.first, turn.last, turn.end), strict=True
        ):
            doubles[name].append(at - began if at else NEVER)
        self._floats["gap_max_ms"].append(turn.gap_max * 1000 if turn.deltas > 1 else NEVER)
        timing = turn.timing or UNTIMED
        for name in TIMING:
            self._floats[name].append(getattr(timing, name))
        self._counts["characters"].append(turn.characters)
        self._counts["deltas"].append(turn.deltas)
        self._bytes["outcome"].append(turn.outcome)
        self._bytes["way"].append(turn.way)
        self._bytes["phase"].append(turn.phase)
        self.finished += 1

    def gap(self, now: float, gap: float) -> None:
        """Every n-th gap is kept; when there are too many, every other one of them goes and n doubles. So
        those that are left are spread evenly over the run."""
        self._gaps_seen += 1
        if self._gaps_seen % self._every:
            return
        self._gaps_at.append(now - self.began)
        self._gaps.append(gap * 1000)
        if len(self._gaps) >= GAPS_KEPT:
            self._gaps_at, self._gaps = self._gaps_at[1::2], self._gaps[1::2]
            self._every *= 2

    def error(self, type: str, detail: str) -> None:
        self.errors[type] += 1
        if self.errors[type] <= ERRORS_KEPT:
            self.errors_kept.append({"at_s": round(self.now, 4), "type": type, "detail": detail[:500]})

    def mark(self, kind: str, text: str) -> None:
        self.marks.append({"at_s": round(self.now, 4), "kind": kind, "text": text})

    def turns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns of `turns.npz`."""
        columns: dict[str, npt.NDArray[Any]] = {}
        for group, type in (
            (self._doubles, "f8"),
            (self._floats, "f4"),
            (self._counts, "i4"),
            (self._bytes, "u1"),
        ):
            columns |= {name: np.frombuffer(column, dtype=type).copy() for name, column in group.items()}
        return columns

    def gaps(self) -> dict[str, npt.NDArray[Any]]:
        return {
            "at_s": np.frombuffer(self._gaps_at, dtype="f8").copy(),
            "gap_ms": np.frombuffer(self._gaps, dtype="f4").copy(),
        }
