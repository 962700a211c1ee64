"""The processor's time that a fleet takes, by process."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import psutil

from benchmarks.fleet import OwnFleet

ROLES = {
    "EngineCore": "engine",
    "ray::Model": "replica",
    "ray::Host": "host",
    "gateway": "gateway",
    "haproxy": "haproxy",
    "Librarian": "librarian",
    "postgres": "postgres",
    "valkey": "valkey",
    "ray::": "ray",
    "raylet": "ray",
    "gcs_server": "ray",
}
"""The first that a process's title contains; whatever is left is `other`."""


class Spent:
    """Seconds in user and system mode, summed over the blocks of `counted`."""

    def __init__(self, fleet: OwnFleet) -> None:
        self._fleet = fleet
        self.by_role: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def counted(self) -> Generator[None]:
        before = self._now()
        yield
        for process, (role, seconds) in self._now().items():
            self.by_role[role] += seconds - before.get(process, (role, 0.0))[1]

    def _now(self) -> dict[tuple[int, float], tuple[str, float]]:
        found: dict[tuple[int, float], tuple[str, float]] = {}
        for process in self._processes():
            try:
                times, role = process.cpu_times(), _role(" ".join(process.cmdline()))
                found[process.pid, process.create_time()] = role, times.user + times.system
            except psutil.Error:
                continue
        return found

    def _processes(self) -> Iterator[psutil.Process]:
        yield from self._fleet.local.processes()
        for pid in self._fleet.local.servers().values():
            server = psutil.Process(pid)
            yield from (server, *server.children(recursive=True))
        yield psutil.Process(os.getpid())  # who asks


def _role(title: str) -> str:
    if re.search(r"benchmarks\.|pytest", title):
        return "client"
    return next((role for part, role in ROLES.items() if part in title), "other")
