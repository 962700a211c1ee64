"""Who dies during a swap, and when: chosen by a seed."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import msgspec
import psutil

from benchmarks.crowd import Crowd
from benchmarks.fleet import OwnFleet

CONTROLLER, REPLICA, HOST = "ray::Controller", "ray::Model", "ray::Host"
TITLES = [CONTROLLER] * 3 + [REPLICA] * 4 + [HOST]
"""A host is killed in one swap of eight."""


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    after_s: float
    place: float
    """Which one of those of that title, 0 to 1."""


def kills(seed: int, swap: int, within_s: float) -> list[Kill]:
    """About one a swap: none, one or two."""
    chance = random.Random(f"{seed} {swap}")
    return [
        Kill(
            title=chance.choice(TITLES),
            after_s=within_s * chance.random(),
            place=chance.random(),
        )
        for _ in range(chance.choice((0, 1, 1, 1, 2)))
    ]


async def perform(fleet: OwnFleet, crowd: Crowd, kill: Kill) -> str:
    """SIGKILL; Ray starts it again. The title, or "" if nobody of that title was there just then."""
    await asyncio.sleep(kill.after_s)
    there = await asyncio.to_thread(_running, fleet, kill.title)
    if not there:
        return ""
    victim = there[int(kill.place * len(there))]
    crowd.log.fault(f"kill {kill.title} {victim.pid}")
    with suppress(psutil.Error):
        victim.kill()
    return kill.title


def _running(fleet: OwnFleet, title: str) -> list[psutil.Process]:
    """Youngest last."""
    found: list[tuple[float, psutil.Process]] = []
    for process in fleet.local.processes():
        with suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith(title):
                found.append((process.create_time(), process))
    return [process for _, process in sorted(found, key=lambda each: each[0])]
