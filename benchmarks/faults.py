"""What can be done to a running fleet, by name. Each is mended by the fleet itself, or here when its time is up.

await FAULTS["host killed"](fleet, crowd, long=False)
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psutil

from benchmarks.crowd import Crowd, patiently
from benchmarks.fleet import OwnFleet
from benchmarks.nodes import TwoNodes

BACK_TIMEOUT_S = 90.0
FROZEN_S = 8.0  # the directory forgets a host after 3
REAPED_TIMEOUT_S = 5.0
GATEWAY = "ray::ServeReplica:flotilla:gateway"

Fault = Callable[[OwnFleet, Crowd, bool], Awaitable[None]]


async def kill(fleet: OwnFleet, crowd: Crowd, title: str) -> None:
    """SIGKILL; Ray starts it again."""
    victim = await asyncio.to_thread(fleet.process, title)
    crowd.log.fault(f"kill {title} {victim.pid}")
    victim.kill()
    await until(lambda: _another(fleet, title, victim.pid))


async def kill_host(fleet: OwnFleet, crowd: Crowd, long: bool) -> None:
    """The one that has most of the crowd's conversations."""
    host = await asyncio.to_thread(busiest, fleet)
    victim = await asyncio.to_thread(process_of, fleet, host)
    crowd.log.fault(f"kill {host['name']}")
    victim.kill()
    await until(lambda: host["name"] in {h["name"] for h in hosts(fleet) if h["address"] != host["address"]})


async def freeze_host(fleet: OwnFleet, crowd: Crowd, long: bool) -> None:
    """Stopped until others have taken over; then it wakes up with its memory as it was."""
    host = await asyncio.to_thread(busiest, fleet)
    victim = await asyncio.to_thread(process_of, fleet, host)
    crowd.log.fault(f"stop {host['name']}")
    await frozen([victim], FROZEN_S)
    crowd.log.fault(f"{host['name']} goes on")


async def kill_gateway(fleet: OwnFleet, crowd: Crowd, long: bool) -> None:
    await kill(fleet, crowd, GATEWAY)


async def kill_model(fleet: OwnFleet, crowd: Crowd, long: bool) -> None:
    await kill(fleet, crowd, "ray::Model")


async def kill_librarian(fleet: OwnFleet, crowd: Crowd, long: bool) -> None:
    await kill(fleet, crowd, "ray::Librarian")


async def kill_controller(fleet: OwnFleet, crowd: Crowd, long: bool) -> None:
    await kill(fleet, crowd, "ray::Controller")


async def kill_valkey(fleet: OwnFleet, crowd: Crowd, long: bool) -> None:
    """The controller starts it again."""
    await _kill_store(crowd, "Valkey", lambda: fleet.local.valkey.pid)


async def kill_postgres(fleet: OwnFleet, crowd: Crowd, long: bool) -> None:
    """With all that serve a connection. The controller starts it again."""
    await _kill_store(crowd, "PostgreSQL", lambda: fleet.local.postgres.pid)


async def _kill_store(crowd: Crowd, what: str, pid: Callable[[], int | None]) -> None:
    victim = pid()
    assert victim is not None, f"{what} does not run"
    crowd.log.fault(f"kill {what}")
    processes = family(victim)
    for process in processes:
        process.kill()
    psutil.wait_procs(
        processes, timeout=REAPED_TIMEOUT_S
    )  # a child of this process stays until it is waited for
    await until(lambda: pid() not in (None, victim))


async def freeze_valkey(fleet: OwnFleet, crowd: Crowd, long: bool) -> None:
    pid = fleet.local.valkey.pid
    assert pid is not None
    crowd.log.fault("stop Valkey")
    await frozen(family(pid), 10.0 if long else 4.0)
    crowd.log.fault("Valkey goes on")


async def freeze_postgres(fleet: OwnFleet, crowd: Crowd, long: bool) -> None:
    pid = fleet.local.postgres.pid
    assert pid is not None
    crowd.log.fault("stop PostgreSQL")
    await frozen(family(pid), 10.0 if long else 4.0)
    crowd.log.fault("PostgreSQL goes on")


async def freeze_gcs(fleet: OwnFleet, crowd: Crowd, long: bool) -> None:
    """Ray's head says nothing: nothing is scheduled, nothing is started again. Conversations go on."""
    gcs = await asyncio.to_thread(fleet.process, "gcs_server")
    crowd.log.fault("stop the GCS")
    stopped = asyncio.create_task(frozen([gcs], 60.0 if long else 10.0))
    before = crowd.replies
    await stopped
    assert crowd.replies > before + len(crowd.customers), "conversations stood still without the GCS"
    crowd.log.fault("the GCS goes on")


async def kill_raylet(fleet: OwnFleet, crowd: Crowd, long: bool) -> None:
    """The second node's; what ran there dies with it. The node comes back."""
    assert isinstance(fleet, TwoNodes)
    raylet = await asyncio.to_thread(lambda: fleet.second)
    assert raylet is not None
    crowd.log.fault("kill the second node's raylet")
    workers = raylet.children(recursive=True)
    raylet.kill()
    await until(lambda: not any(worker.is_running() for worker in workers))
    crowd.log.fault("the second node comes back")
    await asyncio.to_thread(fleet.start_second)


FAULTS: dict[str, Fault] = {
    "host killed": kill_host,
    "host stopped": freeze_host,
    "gateway killed": kill_gateway,
    "model killed": kill_model,
    "librarian killed": kill_librarian,
    "controller killed": kill_controller,
    "raylet killed": kill_raylet,
    "Valkey killed": kill_valkey,
    "Valkey stopped": freeze_valkey,
    "PostgreSQL killed": kill_postgres,
    "PostgreSQL stopped": freeze_postgres,
    "GCS stopped": freeze_gcs,
}


# -- seeing


def hosts(fleet: OwnFleet) -> list[dict[str, Any]]:
    """As the gateway believes them to be."""
    return patiently(lambda: fleet.http.get("/v1/hosts").json()["hosts"])


def busiest(fleet: OwnFleet) -> dict[str, Any]:
    return max(hosts(fleet), key=lambda host: host["activations"])


def process_of(fleet: OwnFleet, host: dict[str, Any]) -> psutil.Process:
    """Whoever listens at the host's address."""
    port = int(host["address"].rpartition(":")[2])
    for process in fleet.local.processes():
        with suppress(psutil.Error):
            if any(c.laddr.port == port and c.status == "LISTEN" for c in process.net_connections("tcp")):
                return process
    raise LookupError(f"Nobody listens at {host['address']}.")


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _another(fleet: OwnFleet, title: str, pid: int) -> bool:
    try:
        return fleet.process(title).pid != pid
    except LookupError:
        return False


async def frozen(processes: list[psutil.Process], seconds: float) -> None:
    """SIGSTOP, and SIGCONT when the time is up, whatever happens meanwhile."""
    try:
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
    finally:
        for process in processes:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)


async def until(true: Callable[[], bool], timeout_s: float = BACK_TIMEOUT_S) -> None:
    """Raises `TimeoutError` if it never comes true."""
    end = time.monotonic() + timeout_s
    while not await asyncio.to_thread(true):
        if time.monotonic() > end:
            raise TimeoutError("what was broken did not come back")
        await asyncio.sleep(0.1)
