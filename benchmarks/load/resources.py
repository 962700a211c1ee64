"""What each process of the fleet and of the load fleet takes, once a second: its share of a core and its memory.

Memory is the proportional set size (PSS): pages that several processes share are split between them, so that
the sum over processes is what the machine has less.
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.load.roles import Cast, is_server

EVERY_S = 1.0
LOOK_EVERY_S = 5.0
MEMORY_SHARE_MAX = 0.02
"""Of the time, that reading the memory may take: where a fleet's takes longer, it is read less often, and
what was read last stands in between."""
_TICKS = os.sysconf("SC_CLK_TCK")


class Sampler:
    """Runs in a thread of its own. `sockets` tells how many client sockets are open."""

    def __init__(self, cast: Cast, began: float, sockets: Callable[[], int]) -> None:
        self._cast = cast
        self._began = began
        self._sockets = sockets
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._cpu: dict[int, float] = {}
        self._cpu_at = 0.0
        self._pss: dict[int, int] = {}
        self._pss_again = self._look_again = 0.0
        self.names: list[str] = []
        self._at, self._index, self._share = array("d"), array("H"), array("f")
        self._bytes, self._open = array("d"), array("i")

    def start(self) -> None:
        self._sample()
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(EVERY_S):
            self._sample()

    def _sample(self) -> None:
        now = time.monotonic()
        if now >= self._look_again:
            self._cast.look()
            self._look_again = now + LOOK_EVERY_S
        if now >= self._pss_again:
            self._read_memory(now)
        spent = {pid: _cpu_s(pid) for pid in self._cast.now}
        shares, sizes = defaultdict[str, float](float), defaultdict[str, int](int)
        for pid, name in self._cast.now.items():
            before = self._cpu.get(pid, spent[pid])
            shares[name] += max(0.0, spent[pid] - before) / max(1e-3, now - self._cpu_at)
            sizes[name] += self._pss.get(pid, 0)
        self._cpu, self._cpu_at = spent, now
        self._note(now, shares, sizes)

    def _read_memory(self, now: float) -> None:
        began = time.monotonic()
        self._pss = {pid: pss_bytes(pid) for pid in self._cast.now}
        took = time.monotonic() - began
        self._pss_again = now + max(0.0, took / MEMORY_SHARE_MAX - EVERY_S / 2)

    def _note(self, now: float, shares: dict[str, float], sizes: dict[str, int]) -> None:
        sockets = self._sockets()
        for name, share in shares.items():
            if name not in self.names:
                self.names.append(name)
            self._at.append(now - self._began)
            self._index.append(self.names.index(name))
            self._share.append(share)
            self._bytes.append(sizes[name])
            self._open.append(sockets)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Of `resources.npz`."""
        return {
            "at_s": np.frombuffer(self._at, dtype="f8").copy(),
            "process": np.frombuffer(self._index, dtype="u2").copy(),
            "cpu_share": np.frombuffer(self._share, dtype="f4").copy(),
            "pss_bytes": np.frombuffer(self._bytes, dtype="f8").copy(),
            "sockets": np.frombuffer(self._open, dtype="i4").copy(),
        }

    def legend(self) -> list[dict[str, Any]]:
        """Of `resources.json`: the processes, by their index."""
        return [{"name": name, "server": is_server(name)} for name in self.names]


def pss_bytes(pid: int) -> int:
    """0 for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), "Pss: 0 kB")
    return int(line.split()[1]) * 1024


def _cpu_s(pid: int) -> float:
    """User and system; 0 for a process that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
