"""A hop's times, and the processor time that each process spent on it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import psutil

IDLE_S = 2.0
NOISE_US = 1.0
"""Below it nothing is shown."""

Seconds = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """`ms` of each operation; `cpu_us` an operation, by process; `passed` is how often a turn passes here on
    the way to its first token."""

    name: str
    about: str
    ms: list[float]
    cpu_us: Seconds = field(default_factory=dict[str, float])
    passed: int = 0

    def percentile(self, quantile: float) -> float:
        return float(np.percentile(self.ms, quantile))


class Meter:
    """Processor time of named processes and of what they started that has no name of its own, less what they
    use when idle."""

    def __init__(
        self, processes: Callable[[], Mapping[str, psutil.Process]], *, idle_s: float = IDLE_S
    ) -> None:
        self._processes = processes
        self._idle: Seconds = {}
        if idle_s:
            before = self.read()
            time.sleep(idle_s)
            self._idle = {name: used / idle_s for name, used in self._used(before).items()}
        self._before, self._began = self.read(), time.monotonic()

    def read(self) -> Seconds:
        """Seconds since each process began."""
        processes = self._processes()
        named = {process.pid for process in processes.values()}
        return {name: _cpu_s(process, named) for name, process in processes.items()}

    def begin(self) -> None:
        self._before, self._began = self.read(), time.monotonic()

    def each(self, operations: int) -> Seconds:
        """Microseconds an operation since `begin`."""
        took_s = time.monotonic() - self._began
        used = self._used(self._before)
        own = {name: seconds - self._idle.get(name, 0.0) * took_s for name, seconds in used.items()}
        found = {name: seconds / operations * 1e6 for name, seconds in own.items()}
        return {name: us for name, us in sorted(found.items(), key=lambda item: -item[1]) if us >= NOISE_US}

    def _used(self, before: Seconds) -> Seconds:
        now = self.read()
        return {name: now[name] - was for name, was in before.items() if name in now}


def _cpu_s(process: psutil.Process, named: set[int]) -> float:
    try:
        children = process.children(recursive=True)
    except psutil.Error:
        return 0.0
    return sum(_own_s(one) for one in (process, *children) if one is process or one.pid not in named)


def _own_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


async def timed(operation: Callable[[], Awaitable[object]], operations: int) -> list[float]:
    """Milliseconds of each, one after another."""
    found: list[float] = []
    for _ in range(operations):
        began = time.perf_counter()
        await operation()
        found.append((time.perf_counter() - began) * 1000)
    return found
