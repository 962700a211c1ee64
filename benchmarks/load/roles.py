"""The processes of a fleet by what they are: `host-0`, `valkey`, `ray`, …"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import psutil

from flotilla.cli.local import Local

ROLES = {
    "ServeReplica:flotilla:gateway": "gateway",
    "ray::Host": "host",
    "ray::Dedicated": "dedicated",
    "ray::Model": "model",
    "ray::Librarian": "librarian",
    "ray::Embedder": "embedder",
    "ray::Controller": "controller",
    "ray::ServeController": "serve-controller",
    "ray::HAProxyManager": "haproxy-manager",
    "ray::ProxyActor": "proxy",
    "EngineCore": "engine",
    "bin/haproxy": "haproxy",
    "valkey-server": "valkey",
    "postgres": "postgres",
    "raylet/raylet": "raylet",
    "gcs_server": "gcs",
}
"""The first that a process's title contains; what is left of Ray's own is `ray`."""
NUMBERED = ("host", "generator")
"""Always with a number; of others the second and further ones have one."""
SERVER = frozenset(ROLES.values()) | {"ray"}


def role(title: str) -> str:
    return next((role for part, role in ROLES.items() if part in title), "ray")


def is_server(name: str) -> bool:
    return not name.startswith(("generator", "conductor"))


class Cast:
    """Who plays which role. A process that was restarted has the name of the one that is gone."""

    def __init__(self, local: Local | None, generators: Sequence[int], conductor: int) -> None:
        self._local = local
        self._ours = {pid: f"generator-{n}" for n, pid in enumerate(generators)} | {conductor: "conductor"}
        self.now: dict[int, str] = {}

    def look(self) -> None:
        """Finds processes that have come and gone."""
        found = {process.pid: self._role(process) for process in self._processes()}
        kept = {pid: name for pid, name in self.now.items() if found.get(pid)}
        self.now = self._ours | kept | self._named({p: r for p, r in found.items() if p not in kept}, kept)

    def _named(self, new: dict[int, str], kept: dict[int, str]) -> dict[int, str]:
        taken, named = Counter(kept.values()), dict[int, str]()
        for pid, role in sorted(new.items()):
            name = role if role in ("postgres", "ray") else _free(role, taken)
            taken[name] += 1
            named[pid] = name
        return named

    def _processes(self) -> Iterator[psutil.Process]:
        if self._local is None:
            return
        yield from self._local.processes()
        for pid in self._local.servers().values():
            try:
                server = psutil.Process(pid)
                yield from (server, *server.children(recursive=True))
            except psutil.Error:
                continue

    def _role(self, process: psutil.Process) -> str:
        try:
            return role(" ".join(process.cmdline()))
        except psutil.Error:
            return ""


def _free(role: str, taken: Counter[str]) -> str:
    names = [role, *(f"{role}-{n}" for n in range(1, 100))]
    if role in NUMBERED:
        names = [f"{role}-{n}" for n in range(100)]
    return next(name for name in names if not taken[name])
