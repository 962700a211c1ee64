"""How far behind its own intentions a generator is: the proof that what a run shows is the fleet's doing."""

from __future__ import annotations

import asyncio
import resource
import time
from array import array
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

LOOK_EVERY_S = 0.05
KEPT = 2_000_000
WINDOW = 5  # seconds over which the share of a core is judged


class Lag:
    """Of each message: sent against intended. Of the event loop: woken against asked for. Milliseconds.

    Messages that were held because their conversation was busy are not the generator's fault and not in it.
    """

    def __init__(self) -> None:
        self.sends = array("f")
        self.delays = array("f")
        self.cpu_share_max = 0.0
        self._recent: list[float] = []
        self._shares: deque[float] = deque(maxlen=WINDOW)
        self._cpu_at = (time.monotonic(), _cpu_s())
        self._handle: asyncio.TimerHandle | None = None

    def sent(self, late_s: float) -> None:
        late_ms = max(0.0, late_s * 1000)
        if len(self.sends) < KEPT:
            self.sends.append(late_ms)
        self._recent.append(late_ms)

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._look(loop, time.monotonic())

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        late_ms = max(0.0, (time.monotonic() - due) * 1000)
        self.delays.append(late_ms)
        self._recent.append(late_ms)
        due = time.monotonic() + LOOK_EVERY_S
        self._handle = loop.call_later(LOOK_EVERY_S, self._look, loop, due)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def recent_ms(self) -> float:
        """The worst since this was asked last."""
        worst, self._recent = max(self._recent, default=0.0), []
        return worst

    def cpu_share(self) -> float:
        """Of one core, since this was asked last. Asked once a second."""
        now, spent = time.monotonic(), _cpu_s()
        before_at, before = self._cpu_at
        self._cpu_at = (now, spent)
        share = (spent - before) / max(1e-6, now - before_at)
        self._shares.append(share)
        if len(self._shares) == WINDOW:
            self.cpu_share_max = max(self.cpu_share_max, sum(self._shares) / WINDOW)
        return share


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def summary(lags_ms: npt.NDArray[Any]) -> dict[str, float]:
    """p50, p99 and max; zeros if there is nothing."""
    if not len(lags_ms):
        return {"p50": 0.0, "p99": 0.0, "max": 0.0}
    p50, p99 = np.percentile(lags_ms, (50, 99))
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(float(lags_ms.max()), 3)}


def invalid_because(
    lag_ms: dict[str, float], cpu_share_max: float, *, lag_p99_ms: float, cpu_share: float
) -> list[str]:
    """Why a run proves nothing about the fleet; empty if it does."""
    found: list[str] = []
    if lag_ms["p99"] > lag_p99_ms:
        found.append(f"The generator lagged: p99 {lag_ms['p99']:.1f} ms, over {lag_p99_ms:g} ms.")
    if cpu_share_max > cpu_share:
        found.append(f"The generator was busy: {cpu_share_max:.0%} of a core, over {cpu_share:.0%}.")
    return found
