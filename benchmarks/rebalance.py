"""One of a few hosts is added, drained or killed under load, again and again: who has to move, and who notices.

    python -m benchmarks.rebalance [--quick] [--json FILE]

Hosts on real links in one process, journal in memory (nothing is written to a disk). Nobody is told of a
change: each host and the gateway read the directory once a second, as they do in a cluster, and for that
long they disagree. Counters take turns all the time; a turn failed that was refused, that changed nothing
though it was acknowledged, or that counted twice.

Where an actor lives is where it is active once all is still again. The fair share of a change is one host's
of all actors; the figure is the worst of all changes.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter as Counts
from collections.abc import Callable

import uvloop

from actors.controller import DRAIN_SETTLES_S
from actors.runtime import Resident
from benchmarks.cluster import Cluster
from benchmarks.report import Result, arguments, report
from examples.counter import Add, Counter, Total
from flotilla.core.errors import FlotillaError
from flotilla.core.ids import ActorId

HOSTS = 4
CALLERS = 32
TURN_EVERY_S = 0.05  # of each caller: 640 turns a second
ASKED_AT_ONCE = 64
STILL_TIMEOUT_S = 30.0
TARGET = 1.1

Homes = dict[ActorId, str]


class Lagging(Cluster):
    """Everybody finds out by itself who is there, within a second."""

    async def refresh(self) -> None:
        return None


class Load:
    """Callers that add to counters, and remember what was acknowledged."""

    def __init__(self, cluster: Cluster, actors: list[ActorId], chance: random.Random) -> None:
        self._cluster = cluster
        self.actors = actors
        self._chance = chance
        self._numbers = itertools.count()
        self.acknowledged: Counts[ActorId] = Counts()
        self.refused: list[str] = []
        self.turns = 0
        self.over = False

    async def call(self) -> None:
        while not self.over:
            await asyncio.sleep(self._chance.uniform(0, 2 * TURN_EVERY_S))
            await self.turn(self._chance.choice(self.actors))

    async def turn(self, actor: ActorId) -> None:
        self.turns += 1
        try:
            await self._cluster.fleet.ask(actor, Add(id=f"c-{next(self._numbers)}"))
            self.acknowledged[actor] += 1
        except FlotillaError as error:
            self.refused.append(f"{type(error).__name__}: {error.detail}")

    async def lost_or_doubled(self) -> int:
        """Acknowledged turns that are not in the record once."""
        wrong = 0
        for actor, times in self.acknowledged.items():
            wrong += abs(await self._cluster.fleet.ask(actor, Total()) - times)
        return wrong


class Moves:
    """Changes hosts one after another, and counts who lives elsewhere after each."""

    def __init__(self, cluster: Cluster, load: Load, chance: random.Random) -> None:
        self._cluster = cluster
        self._load = load
        self._actors = load.actors
        self._chance = chance
        self._numbers = itertools.count()
        self.ratios: list[float] = []

    async def begin(self) -> None:
        for _ in range(HOSTS):
            await self.add()
        await self._cluster.roster.refresh()

    async def add(self) -> None:
        await self._cluster.add(f"host-{next(self._numbers)}")

    async def drain(self) -> None:
        """As the controller does it."""
        name = self._any()
        await self._cluster.drain(name)
        await asyncio.sleep(DRAIN_SETTLES_S)
        await _until(lambda: not self._cluster.hosts[name].active)
        await self._cluster.kill(name)

    async def kill(self) -> None:
        await self._cluster.kill(self._any())

    def _any(self) -> str:
        return self._chance.choice(sorted(self._cluster.hosts))

    async def run(self, changes: int) -> None:
        before = await self.homes()
        for number in range(changes):
            most = len(self._cluster.hosts)
            await (self.add, self.drain, self.add, self.kill)[number % 4]()
            after = await self.homes()
            moved = sum(before[actor] != after[actor] for actor in self._actors)
            share = len(self._actors) / max(most, len(self._cluster.hosts))
            self.ratios.append(moved / share)
            before = after

    async def homes(self) -> Homes:
        """Once everybody has found out, and every actor is awake in one place."""
        await _until(self._all_know)
        await _until(lambda: len(self._active()) == len(set(self._active())))
        awake = set(self._active())
        await self._wake([actor for actor in self._actors if actor not in awake])
        hosts = self._cluster.hosts.items()
        return {actor: name for name, host in hosts for actor in host.active}

    def _all_know(self) -> bool:
        there = set(self._cluster.hosts)
        rosters = [
            self._cluster.roster,
            *(host.runtime.fleet.roster for host in self._cluster.hosts.values()),
        ]
        agreed = all({m.name for m in roster.members("host")} == there for roster in rosters)
        return agreed and all(self._at_home(name) for name in there)

    def _at_home(self, name: str) -> bool:
        host = self._cluster.hosts[name]
        return all(host.runtime.fleet.home(actor) == name for actor in host.active)

    def _active(self) -> list[ActorId]:
        return [actor for host in self._cluster.hosts.values() for actor in host.active]

    async def _wake(self, asleep: list[ActorId]) -> None:
        left = iter(asleep)

        async def some() -> None:
            for actor in left:
                await self._load.turn(actor)

        await asyncio.gather(*(some() for _ in range(ASKED_AT_ONCE)))


async def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + STILL_TIMEOUT_S
    while not holds():
        if time.monotonic() > end:
            raise AssertionError("The fleet did not come to rest.")
        await asyncio.sleep(0.05)


async def measure(changes: int, number: int) -> list[Result]:
    chance = random.Random(7)
    cluster = Lagging(lambda _: [Resident(Counter)])
    actors = [ActorId("demo", "counter", f"n-{n}") for n in range(number)]
    load = Load(cluster, actors, chance)
    moves = Moves(cluster, load, chance)
    await moves.begin()
    looking = asyncio.create_task(cluster.roster.run())
    callers = [asyncio.create_task(load.call()) for _ in range(CALLERS)]
    await moves.run(changes)
    load.over = True
    await asyncio.gather(*callers)
    wrong = await load.lost_or_doubled()
    looking.cancel()
    await cluster.aclose()
    return _results(moves.ratios, load, wrong)


def _results(ratios: list[float], load: Load, wrong: int) -> list[Result]:
    median = sorted(ratios)[len(ratios) // 2]
    moved = Result(
        measure="moved_over_fair_share",
        value=round(max(ratios), 3),
        unit="x",
        target=TARGET,
        better="lower",
        samples=len(ratios),
        spread=round((max(ratios) - min(ratios)) / median, 3),
    )
    failed = Result(
        measure="failed_turns",
        value=len(load.refused) + wrong,
        unit="turns",
        target=0,
        better="lower",
        samples=load.turns,
    )
    for reason, times in Counts(load.refused).most_common(5):
        print(f"{times} times {reason}")
    return [moved, failed]


def main() -> None:
    options = arguments("rebalance", "Who moves, and who notices, when hosts come and go.").parse_args()
    sizes = (8, 2_000) if options.quick else (100, 10_000)
    report("rebalance", uvloop.run(measure(*sizes)), options.json)


if __name__ == "__main__":
    main()
