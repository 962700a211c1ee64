"""The processes of a simulated fleet, wired as `serve.processes` wires the real ones, on stores of the world."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from actors.alarm import Alarm
from actors.answering import Answering
from actors.buckets import buckets_of
from actors.care import Care
from actors.doorways import Doorways
from actors.fleet import Fleet
from actors.host import Host
from actors.lease import Lease
from actors.link import Links, Listener
from actors.load import Load
from actors.residents import session as session_residents
from actors.roster import Roster
from actors.runtime import Kinds, Resident, Runtime
from actors.service import Service
from actors.serving.single import OneModel
from flotilla.core.knowledge import Hit, Passage
from flotilla.core.limits import Limits
from flotilla.core.members import Member
from flotilla.core.session import Session
from flotilla.core.swap import Model
from flotilla.core.versions import Plan
from models.scripted import ScriptedModel, ScriptSettings
from simulation.boards import SeenBoard
from simulation.choosing import Chosen
from simulation.clock import SimClock
from simulation.edge import Edge, codecs_of
from simulation.kinds import Bell, Cashier, Paying, Till
from simulation.loop import SimLoop
from simulation.process import Process
from simulation.serving import Serving
from simulation.stores import Store
from simulation.versions import FACTS, REPLIES
from simulation.writers import Writer

TOKEN = "t"
ALARM_S = 0.5
LIMITS = Limits(recover_every_s=1.0)
CODECS = codecs_of([Session, Till, Cashier, Bell, Model, Writer])
SCRIPT = ScriptSettings(mode="replies", replies=REPLIES, first_token_s=0.02, token_s=0.01, tick_s=0.005)


class Shelf:
    """Knowledge with one answer to everything."""

    _HITS = (Hit(passage=Passage(id="f#0", document="f", title="F", text=FACTS), score=1.0, similarity=0.9),)

    async def search(self, *_: Any, **__: Any) -> tuple[Hit, ...]:
        return self._HITS


class Stores(msgspec.Struct):
    """Those of the world."""

    journal: Store
    letters: Store
    hot_log: Store
    directory: Store
    pins: Store
    bank: Store
    boards: Store | None = None  # where there are models
    crew: Store | None = None

    def all(self) -> list[Store]:
        there = (self.journal, self.letters, self.hot_log, self.directory, self.pins, self.bank)
        return [*there, *(store for store in (self.boards, self.crew) if store)]


class Ground(msgspec.Struct, frozen=True):
    """What a process stands on."""

    name: str
    life: str
    loop: SimLoop
    process: Process
    stores: Stores
    log: Any
    chance: random.Random
    rings: bool  # whether there are reminders in this world
    saw: Callable[[str, Plan], None]  # hears of the plans that a process, by its life, is given
    chose: Chosen  # hears of the versions that are to answer

    @property
    def board(self) -> SeenBoard:
        """Where the plans hang, as this process sees it."""
        assert self.stores.boards is not None
        return SeenBoard(self.stores.boards.seen_from(self.process), partial(self.saw, self.life))


class Node:
    """What a process of the fleet has in common with the others. Make it inside its process."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.clock = SimClock(ground.loop, ground.process)
        self.links = Links(TOKEN)
        self.directory = ground.stores.directory.seen_from(ground.process)
        pins = ground.stores.pins.seen_from(ground.process)
        roles = ("host", "model") if ground.stores.boards else ("host",)
        self.roster = Roster(self.directory, self.clock, ground.log, *roles, pins=pins)
        self.fleet = Fleet(self.links, self.roster, self.clock, ground.log)

    async def run(self) -> None:
        raise NotImplementedError


class HostNode(Node):
    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self.lease = Lease()
        self.letters = ground.stores.letters.seen_from(ground.process)
        self.serving = self._serving() if ground.stores.boards else None
        self.host = Host(self._runtime(), ground.name, lease=self.lease)

    def _runtime(self) -> Runtime:
        return Runtime(
            journal=self.ground.stores.journal.seen_from(self.ground.process),
            letters=self.letters,
            kinds=Kinds(self._residents()),
            fleet=self.fleet,
            clock=self.clock,
            log=self.ground.log,
            limits=LIMITS,
            random=self.ground.chance,
        )

    def _serving(self) -> Serving:
        ground = self.ground
        assert ground.stores.boards is not None
        boards = ground.stores.boards.seen_from(ground.process)
        return Serving(
            self.links,
            self.roster,
            ground.board,
            boards,
            clock=self.clock,
            log=ground.log,
            random=ground.chance,
            chose=ground.chose,
        )

    def _residents(self) -> list[Resident]:
        serving = self.serving
        doors = Doorways(
            knowledge=Shelf(),  # type: ignore[arg-type]
            model=serving.models if serving else OneModel(ScriptedModel(SCRIPT, self.clock)),
            board=serving.board if serving else None,
            tallies=serving.boards if serving else None,
            replicas=serving.replicas if serving else None,
            hot_log=self.ground.stores.hot_log.seen_from(self.ground.process),
            letters=self.letters,
            clock=self.clock,
            log=self.ground.log,
            limits=LIMITS,
            may_show=lambda: self.lease.valid(self.clock.monotonic()),
            spawn=lambda work: self.host.spawn(work),  # noqa: PLW0108 - the host is made with it
        )
        paying = Paying(self.ground.stores.bank.seen_from(self.ground.process), self.clock)
        return [
            *session_residents.residents(doors),
            Resident(Till, paying),
            Resident(Cashier),
            Resident(Bell),
            *(serving.residents(doors, self.ground.chance) if serving else ()),
        ]

    async def run(self) -> None:
        answering, care = Answering(self.host), Care(self.host)

        async def keep_house(_: Member) -> None:
            await care.run()

        service = Service(
            role="host",
            handler=answering.handle,
            asked=answering.asked,
            feeds=answering.feeds,
            directory=self.directory,
            clock=self.clock,
            log=self.ground.log,
            token=TOKEN,
            lease=self.lease,
            report=Load(self.host).report,
            housekeeping=(
                lambda _: self.roster.run(),
                keep_house,
                lambda _: self._ring(),
                *((lambda _: serving.run(),) if (serving := self.serving) else ()),
            ),
            closers=(*((self.serving.models.close,) if self.serving else ()), self.links.aclose),
        )
        await service.run(self.ground.name, "127.0.0.1", lambda _: None)

    async def _ring(self) -> None:
        """Looks seldom: most worlds have nothing to ring."""
        journal = self.ground.stores.journal.seen_from(self.ground.process)
        buckets = partial(buckets_of, self.roster, self.ground.name)
        alarm = Alarm(journal, self.fleet.due, buckets, self.clock, self.ground.log, look_every_s=ALARM_S)
        if self.ground.rings:
            await alarm.run()


class GatewayNode(Node):
    """`port` is where its clients find it."""

    def __init__(self, port: int, ground: Ground) -> None:
        super().__init__(ground)
        self.port = port

    async def run(self) -> None:
        await Listener(Edge(self.fleet, CODECS).answer, TOKEN).start("127.0.0.1", self.port)
        await self.roster.run()
