"""How busy a host is, for the beats that the controller reads."""

from __future__ import annotations

import time

from actors.host import Host
from flotilla.core.members import MemberState


class Load:
    """`busy` is the share of the time since the last report that the process spent computing, 0 to 1."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def report(self) -> tuple[MemberState, dict[str, float]]:
        wall, cpu = time.monotonic(), time.process_time()
        busy = (cpu - self._cpu) / max(wall - self._wall, 1e-6)
        self._wall, self._cpu = wall, cpu
        load = {
            "busy": round(min(1.0, busy), 3),
            "activations": float(len(self._host.active)),
            "waiting": float(len(self._host.queue)),
            **self._host.pressure.load(),
        }
        return ("draining" if self._host.draining else "up"), load
