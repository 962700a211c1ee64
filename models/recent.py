"""How long replies waited for their first token lately."""

from __future__ import annotations

import math
from collections import deque

SPAN_S = 60.0
SAMPLES_MAX = 1024


class FirstTokens:
    """Times to the first token of the last minute, the latest `SAMPLES_MAX` of them. `now` is in seconds of a
    monotonic clock."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES_MAX)

    def add(self, now: float, ms: float) -> None:
        self._samples.append((now, ms))

    def p95(self, now: float) -> float:
        """In ms; 0 if there was nothing."""
        while self._samples and self._samples[0][0] < now - SPAN_S:
            self._samples.popleft()
        ordered = sorted(ms for _, ms in self._samples)
        return ordered[math.ceil(0.95 * len(ordered)) - 1] if ordered else 0.0
