"""Messages between actors, for `benchmarks.messages`: inside a host, and from one host to another.

A message here is all that the runtime does for it: found by name, into the mailbox, handled in its turn,
answered. Nothing is recorded.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, ClassVar

import uvloop

from actors.fleet import Fleet
from actors.host import Host
from actors.link import Links
from actors.roster import Roster
from actors.runtime import Resident
from benchmarks.cluster import LOG, TOKEN, Cluster
from flotilla.core.actor import Actor, Kind
from flotilla.core.clock import SystemClock
from flotilla.core.effects import Answer, Effects, Message, Tell
from flotilla.core.ids import ActorId
from flotilla.core.members import Member
from flotilla.stores.memory import MemoryDirectory

PAIRS = 500
ASKERS = 256
TOLD_AT_ONCE = 100 * ASKERS


class Hop(Message[int], frozen=True, kw_only=True, tag="hop"):
    """Told on to the other of a pair until `left` is 0."""

    left: int
    back: str


class Count(Message[int], frozen=True, tag="count"):
    pass


class Hopper(Actor):
    kind: ClassVar[Kind] = Kind(name="hopper", messages=Hop | Count, facts=Hop)

    heard: int = 0

    def on(self, signal: Any) -> Effects:
        if isinstance(signal, Count):
            return (Answer(value=self.heard),)
        self.heard += 1
        if not signal.left:
            return ()
        to = ActorId(self.id.tenant, "hopper", signal.back)
        return (Tell(to=to, message=Hop(left=signal.left - 1, back=self.id.name)),)


def residents(_: object) -> list[Resident]:
    return [Resident(Hopper)]


# -- inside a host


def inside(hops: int) -> list[float]:
    """Messages a second, a figure a round: pairs of actors that tell each other."""
    return uvloop.run(_inside(hops))


async def _inside(hops: int, rounds: int = 5) -> list[float]:
    cluster = Cluster(residents)
    host = await cluster.add("a", housekeeping=False)
    await cluster.settle()
    rates = [await _round(host, hops) for _ in range(rounds + 1)]
    await cluster.aclose()
    return rates[1:]  # the first warms up


async def _round(host: Host, hops: int) -> float:
    before = await _heard(host)
    began = time.perf_counter()
    for n in range(PAIRS):
        host.runtime.fleet.tell(_hopper(f"{n}-a"), Hop(left=hops - 1, back=f"{n}-b"))
    while not all(activation.idle for activation in host.active.values()):
        await asyncio.sleep(0.005)
    taken = time.perf_counter() - began
    heard = await _heard(host) - before
    assert heard == PAIRS * hops, f"{heard} of {PAIRS * hops} messages were heard"
    return heard / taken


async def _heard(host: Host) -> int:
    names = [f"{n}-{side}" for n in range(PAIRS) for side in "ab"]
    return sum(await asyncio.gather(*(host.runtime.fleet.ask(_hopper(name), Count()) for name in names)))


def _hopper(name: str) -> ActorId:
    return ActorId("demo", "hopper", name)


# -- between two processes (each a Ray actor)


class Hosting:
    """The process that hosts the actors."""

    async def listen(self) -> str:
        self._cluster = Cluster(residents)
        await self._cluster.add("there", housekeeping=False)
        await self._cluster.settle()
        return self._cluster.members["there"].address


class Asking:
    """The process whose callers ask them, by name, as a gateway or another host does."""

    async def connect(self, hosting: Any) -> None:
        self._hosting = hosting  # which lives for as long as somebody can call it
        directory, clock = MemoryDirectory(), SystemClock()
        address = await hosting.listen.remote()
        await directory.beat(Member(role="host", name="there", life="l", address=address))
        roster = Roster(directory, clock, LOG, "host")
        await roster.refresh()
        self._fleet = Fleet(Links(TOKEN), roster, clock, LOG)

    async def ask(self, messages: int) -> float:
        """Messages a second: each asker asks again as soon as it is answered."""

        async def one(name: str, times: int) -> None:
            id = _hopper(name)
            for _ in range(times):
                await self._fleet.ask(id, Count())

        began = time.perf_counter()
        await asyncio.gather(*(one(f"{n}-a", messages // ASKERS) for n in range(ASKERS)))
        return messages / (time.perf_counter() - began)

    async def tell(self, messages: int) -> float:
        """Until the last has been handled; raises if one got lost."""
        before, began = await self._heard(), time.perf_counter()
        for sent in range(messages):
            self._fleet.tell(_hopper(f"{sent % ASKERS}-a"), Hop(left=0, back=""))
            if sent % TOLD_AT_ONCE == 0:  # a mailbox holds 256: who tells faster than it is heard loses some
                await self._heard()
        heard = await self._heard() - before
        taken = time.perf_counter() - began
        assert heard == messages, f"{heard} of {messages} messages were heard"
        return messages / taken

    async def _heard(self) -> int:
        return sum([await self._fleet.ask(_hopper(f"{n}-a"), Count()) for n in range(ASKERS)])
