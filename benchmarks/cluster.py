"""Hosts and a fleet in one process, on real links and memory stores: for tests and for benchmarks of the
runtime itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from actors.alarm import Alarm
from actors.answering import Answering
from actors.buckets import buckets_of
from actors.care import Care
from actors.fleet import Fleet
from actors.host import Host
from actors.link import Links, Listener
from actors.roster import Roster
from actors.runtime import Kinds, Resident, Runtime
from flotilla.core.clock import SystemClock
from flotilla.core.limits import Limits
from flotilla.core.members import Member
from flotilla.stores.memory import MemoryDirectory, MemoryLetters, MemoryPins
from flotilla.stores.memory_journal import MemoryJournal

TOKEN = "t"
LOG = structlog.wrap_logger(logging.getLogger("cluster"))
LIMITS = Limits(recover_every_s=0.02)

Residents = Callable[["Cluster"], Sequence[Resident]]


class Cluster:
    """`residents` makes the kinds of a host; `journal` and the other stores are shared by all hosts."""

    def __init__(self, residents: Residents, *, journal: Any = None, limits: Limits = LIMITS) -> None:
        self.clock = SystemClock()
        self.journal = journal if journal is not None else MemoryJournal()
        self.letters = MemoryLetters()
        self.directory, self.pins = MemoryDirectory(), MemoryPins()
        self.limits = limits
        self.hosts: dict[str, Host] = {}
        self.members: dict[str, Member] = {}
        self.links, self.roster, self.fleet = self._fleet()
        self._residents = residents
        self._listeners: dict[str, Listener] = {}
        self._tasks: dict[str, list[asyncio.Task[Any]]] = {}
        self._fleets: list[Links] = [self.links]

    def _fleet(self) -> tuple[Links, Roster, Fleet]:
        links = Links(TOKEN)
        roster = Roster(self.directory, self.clock, LOG, "host", pins=self.pins)
        return links, roster, Fleet(links, roster, self.clock, LOG)

    async def add(self, name: str, *, housekeeping: bool = True) -> Host:
        links, roster, fleet = self._fleet()
        self._fleets.append(links)
        runtime = Runtime(
            journal=self.journal,
            letters=self.letters,
            kinds=Kinds(self._residents(self)),
            fleet=fleet,
            clock=self.clock,
            log=LOG,
            limits=self.limits,
        )
        host = self.hosts[name] = Host(runtime, name)
        answering = Answering(host)
        listener = self._listeners[name] = Listener(
            answering.handle, TOKEN, asked=answering.asked, feeds=answering.feeds
        )
        await self.enlist(name, await listener.start(), roster)
        works = [roster.run()]
        if housekeeping:
            alarm = Alarm(self.journal, fleet.due, lambda: buckets_of(roster, name), self.clock, LOG)
            host.alarm = alarm
            works += [Care(host).run(), alarm.run()]
        self._tasks[name] = [asyncio.create_task(work) for work in works]
        return host

    async def enlist(self, name: str, address: str, roster: Roster | None = None) -> None:
        member = self.members[name] = Member(role="host", name=name, life=f"l-{name}", address=address)
        await self.directory.beat(member)
        await self.refresh()
        if roster is not None:
            await roster.refresh()

    async def drain(self, name: str) -> None:
        """As the controller asks and the host's next beat says."""
        self.hosts[name].draining = True
        self.members[name] = msgspec.structs.replace(self.members[name], state="draining")
        await self.directory.beat(self.members[name])
        await self.refresh()

    async def settle(self) -> None:
        """Until no host doubts any more what it remembers: membership has not changed for a while."""
        for host in self.hosts.values():
            now = self.clock.monotonic()
            await asyncio.sleep(max(0.0, host.doubt.settled_at(now) - now))

    async def refresh(self) -> None:
        """Everybody learns at once who is there."""
        await self.roster.refresh()
        for host in self.hosts.values():
            await host.runtime.fleet.roster.refresh()

    async def kill(self, name: str) -> None:
        """Its sockets break, its actors are gone without a word to anybody."""
        host = self.hosts.pop(name)
        for task in self._tasks.pop(name):
            task.cancel()
        await host.abandon()
        await self._listeners.pop(name).aclose()
        await self.directory.leave(self.members.pop(name))
        await self.refresh()

    async def aclose(self) -> None:
        for name in list(self.hosts):
            await self.kill(name)
        for links in self._fleets:
            await links.aclose()
