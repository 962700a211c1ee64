"""The processes of a fleet on this machine, by the names that people know them by: host-0, gateway, valkey."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from flotilla.cli.local import Local
from flotilla.cli.spying import denied
from flotilla.core.errors import FlotillaError, NotFound, Unavailable
from flotilla.core.members import Member
from flotilla.stores import valkey

ROLES = ("host", "dedicated", "controller", "librarian", "embedder", "model")
"""Of the members that beat in the directory; it knows their names."""
TITLES = {
    "ray::ServeReplica:flotilla:gateway": "gateway",
    "ray::ServeController": "serve-controller",
    "ray::ProxyActor": "proxy",
    "ray::HAProxyManager": "haproxy-manager",
    **{f"ray::{role.capitalize()}": role for role in ROLES},
}
PROGRAMS = {"gcs_server": "gcs", "ray.util.client.server": "ray-client"}
SERVERS = ("postgres", "valkey")
WATCH_S = 1.0
"""How long the processes are watched to find the busiest."""


def running(local: Local) -> dict[str, psutil.Process]:
    """As `named`. Raises `Unavailable` if no fleet of this folder runs here, `Misconfigured` if it can't
    be seen."""
    found = named(local)
    if any(name not in SERVERS for name in found):
        return found
    if local.run is None:
        raise Unavailable(
            f"No fleet of {local.home} runs on this machine.",
            next="Start one with `flotilla up`, or set FLOTILLA_HOME to that of the one that runs.",
        )
    raise denied(f"the processes of {local.home}")


def choose(running: Mapping[str, psutil.Process], wanted: str) -> tuple[str, psutil.Process]:
    """The process whose name is or begins with `wanted`; without one, the busiest that runs Python.
    Raises `NotFound`."""
    if not wanted:
        return busiest({name: process for name, process in running.items() if _is_python(process)})
    names = [wanted] if wanted in running else [name for name in running if name.startswith(wanted)]
    if len(names) != 1:
        raise NotFound(
            f"{'No process' if not names else 'More than one'} of this fleet is called {wanted!r}.",
            field="PROCESS",
            next=f"Name one of these: {', '.join(sorted(names or running))}.",
        )
    return names[0], running[names[0]]


def busiest(running: Mapping[str, psutil.Process]) -> tuple[str, psutil.Process]:
    """Whoever uses most of a processor in the next second."""
    before = {name: _cpu_s(process) for name, process in running.items()}
    time.sleep(WATCH_S)
    name = max(running, key=lambda name: _cpu_s(running[name]) - before[name])
    return name, running[name]


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
        return times.user + times.system
    except psutil.Error:
        return 0.0


def _is_python(process: psutil.Process) -> bool:
    """Ray's workers change their title, not their program."""
    try:
        return Path(process.exe()).name.startswith("python")
    except (psutil.Error, OSError):
        return False


# -- names


def named(local: Local) -> dict[str, psutil.Process]:
    """Every process of the fleet that runs here, by its name; of several that share one, the second is
    `NAME-1` and so on."""
    known = _members(local)
    found: dict[str, psutil.Process] = {}
    for process in sorted(local.processes(), key=lambda process: process.pid):
        if (name := known.get(process.pid) or _title(process)) is not None:
            found[_free(name, found)] = process
    for name, pid in local.servers().items():
        found[name] = psutil.Process(pid)
    return found


def _free(name: str, taken: dict[str, psutil.Process]) -> str:
    number = 0
    free = name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _title(process: psutil.Process) -> str | None:
    """None for one that is gone, and for a shell that only started another."""
    try:
        words = process.cmdline()
    except (psutil.Error, OSError):
        return None
    if not words:
        return None
    for title, name in TITLES.items():
        if words[0].startswith(title):
            return name
    program = _program(words)
    return PROGRAMS.get(program, program)


def _program(words: list[str]) -> str:
    if words[0].startswith("ray::"):
        return words[0].removeprefix("ray::").split(".")[0].lower()
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    script = next((word for word in words[1:] if word.endswith(".py")), words[0])
    return (
        Path(script).name.removesuffix(".py").replace("_", "-") if script != words[0] else Path(script).name
    )


# -- the members' own names


def _members(local: Local) -> dict[int, str]:
    """Names by process id: whoever listens at a member's address is that member. Nobody's, if the directory
    doesn't answer: a fleet that is half down is just what a person wants to look into. Raises `Misconfigured`
    where sockets of others can't be seen."""
    url = os.environ.get("REDIS_URL") or local.valkey.url
    try:
        addresses = asyncio.run(_addresses(url))
    except FlotillaError:
        return {}
    found = {pid: addresses[place] for place, pid in _listeners() if place in addresses}
    if not found and any(address.startswith("127.") for address in addresses):
        raise denied("this fleet's sockets")  # they listen, and the system doesn't say who
    return found


async def _addresses(url: str) -> dict[str, str]:
    directory = valkey.ValkeyDirectory(valkey.connect(url))
    try:
        members = [member for role in ROLES for member in await directory.members(role)]
        return {member.address: _name(member) for member in members}
    finally:
        await directory.close()


def _name(member: Member) -> str:
    """A model is called after its version, so its role goes before."""
    plain = member.name.startswith(member.role)
    return member.name if plain else f"{member.role}:{member.name}"


def _listeners() -> Iterator[tuple[str, int]]:
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.pid:
            yield f"{connection.laddr.ip}:{connection.laddr.port}", connection.pid
