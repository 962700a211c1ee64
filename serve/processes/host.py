"""A host of actors: what it stands on, who lives in it, and what it does besides answering."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from actors.alarm import Alarm
from actors.answering import Answering
from actors.buckets import buckets_of
from actors.care import Care
from actors.cluster import RaySpawner
from actors.dedicated import Spawning, ends_when_asleep
from actors.doors import RemoteKnowledge
from actors.doorways import Doorways, find_residents
from actors.fleet import Fleet
from actors.host import Host
from actors.lease import Lease
from actors.link import Links
from actors.load import Load
from actors.pressure import Pressure
from actors.runtime import Kinds, Runtime
from actors.service import Housekeeping, Service
from actors.serving.bills import Bills
from actors.serving.charging import Charging
from actors.serving.standing import stands
from flotilla.core.clock import SystemClock
from flotilla.core.ids import ActorId
from flotilla.core.members import Member
from flotilla.core.ports import UsageLedger
from flotilla.stores import valkey
from flotilla.stores.postgres import PostgresJournal, open_journal
from serve import recipes, tracing
from serve.log import logger
from serve.roster import roster_of
from serve.serving import Serving
from serve.settings import Settings
from serve.tracing import tracer_of


async def wire(settings: Settings) -> Service:
    return await host_service(settings)


async def host_service(settings: Settings, only: ActorId | None = None) -> Service:
    """A host of many actors or, with `only`, of a single one that has the process for itself."""
    ground = Ground(settings, await open_journal(settings.database_url, secret=settings.secret))
    here = _host(ground, only)
    answering = Answering(here)
    return Service(
        role="host" if only is None else "dedicated",
        handler=answering.handle,
        asked=answering.asked,
        feeds=answering.feeds,
        directory=ground.directory,
        clock=ground.clock,
        log=ground.log,
        token=settings.token,
        info={} if only is None else {"actor": str(only)},
        lease=ground.lease,
        report=Load(here).report,
        housekeeping=_housekeeping(ground, here),
        closers=ground.closers,
    )


class Ground:
    """What a host stands on: the record, the way to the others, the models and what they cost."""

    def __init__(self, settings: Settings, journal: PostgresJournal) -> None:
        self.settings, self.journal = settings, journal
        self.log, self.clock, self.lease = logger("host"), SystemClock(), Lease()
        self.client = valkey.connect(settings.redis_url)
        self.directory = valkey.ValkeyDirectory(self.client)
        self.links = Links(settings.token)
        pins = valkey.ValkeyPins(self.client)
        self.roster = roster_of(settings, self.directory, pins, self.clock, self.log)
        self.fleet = Fleet(self.links, self.roster, self.clock, self.log)
        self.serving = Serving(
            settings, self.client, self.links, roster=self.roster, clock=self.clock, log=self.log
        )
        self.charging = Charging(lambda: _ready(journal.ledger), self.clock, self.log)
        self.tracer = tracer_of(settings, "host", self.log)

    @property
    def closers(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """In the order in which it is left: who still writes goes before what is written to."""
        return (
            self.serving.aclose,
            self.charging.aclose,
            self.links.aclose,
            self.journal.close,
            self.directory.close,
            lambda: tracing.close(self.tracer),
        )


def _host(ground: Ground, only: ActorId | None) -> Host:
    settings, models = ground.settings, ground.serving.models
    pressure = Pressure(ground.clock, settings.queue_target_s)
    models.waited = pressure.waited
    here = Host(_runtime(ground), only=only, lease=ground.lease, pressure=pressure)
    here.models = lambda: stands(models, ground.charging)
    spawner = RaySpawner(lambda actor, resources: recipes.dedicated(settings, actor, resources))
    here.spawning = Spawning(lambda name: here.runtime.kinds.of(name).kind, spawner, ground.clock)
    return here


def _runtime(ground: Ground) -> Runtime:
    return Runtime(
        journal=ground.journal,
        letters=ground.journal.letters,
        kinds=Kinds(find_residents(_doorways(ground), ground.settings.kinds)),
        fleet=ground.fleet,
        clock=ground.clock,
        log=ground.log,
        tracer=ground.tracer,
    )


def _doorways(ground: Ground) -> Doorways:
    clock, serving = ground.clock, ground.serving
    return Doorways(
        knowledge=RemoteKnowledge(ground.links, ground.roster),
        model=serving.models,
        board=serving.board,
        tallies=serving.tallies,
        replicas=serving.replicas,
        bills=Bills(ground.charging, serving.models, clock),
        judges=ground.settings.judges,
        hot_log=valkey.ValkeyHotLog(ground.client),
        letters=ground.journal.letters,
        clock=clock,
        log=ground.log,
        may_show=lambda: ground.lease.valid(clock.monotonic()),
    )


def _housekeeping(ground: Ground, here: Host) -> tuple[Housekeeping, ...]:
    """One that has the process for itself rings nobody, and ends the process when it sleeps."""
    clock, roster = ground.clock, ground.roster
    care = Care(here, ground.settings.host_memory_bytes)
    alarm = Alarm(ground.journal, ground.fleet.due, lambda: buckets_of(roster, here.name), clock, ground.log)
    here.alarm = alarm

    async def keep_house(me: Member) -> None:
        here.name = me.name
        await care.run()

    async def ring(_: Member) -> None:
        await alarm.run()

    async def serve_models(_: Member) -> None:
        await asyncio.gather(ground.serving.run(), ground.charging.run())

    async def feel_pressure(_: Member) -> None:
        await here.pressure.run()

    own = ring if here.only is None else ends_when_asleep(lambda: bool(here.active), clock)
    return lambda _: roster.run(), keep_house, serve_models, feel_pressure, own


async def _ready(ledger: UsageLedger) -> UsageLedger:
    return ledger
