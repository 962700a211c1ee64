"""A host of actors."""

from __future__ import annotations

import asyncio

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
from actors.service import Service
from actors.serving.bills import Bills
from actors.serving.charging import Charging
from actors.serving.standing import stands
from flotilla.core.clock import SystemClock
from flotilla.core.ids import ActorId
from flotilla.core.members import Member
from flotilla.core.ports import UsageLedger
from flotilla.stores import valkey
from flotilla.stores.postgres import open_journal
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
    log, clock, lease = logger("host"), SystemClock(), Lease()
    journal = await open_journal(settings.database_url, secret=settings.secret)
    client = valkey.connect(settings.redis_url)
    directory = valkey.ValkeyDirectory(client)
    links = Links(settings.token)
    roster = roster_of(settings, directory, valkey.ValkeyPins(client), clock, log)
    fleet = Fleet(links, roster, clock, log)
    letters = journal.letters
    serving = Serving(settings, client, links, roster=roster, clock=clock, log=log)
    charging = Charging(lambda: _ready(journal.ledger), clock, log)
    doors = Doorways(
        knowledge=RemoteKnowledge(links, roster),
        model=serving.models,
        board=serving.board,
        tallies=serving.tallies,
        replicas=serving.replicas,
        bills=Bills(charging, serving.models, clock),
        judges=settings.judges,
        hot_log=valkey.ValkeyHotLog(client),
        letters=letters,
        clock=clock,
        log=log,
        may_show=lambda: lease.valid(clock.monotonic()),
    )
    runtime = Runtime(
        journal=journal,
        letters=letters,
        kinds=Kinds(find_residents(doors, settings.kinds)),
        fleet=fleet,
        clock=clock,
        log=log,
        tracer=tracer_of(settings, "host", log),
    )
    pressure = Pressure(clock, settings.queue_target_s)
    serving.models.waited = pressure.waited
    here = Host(runtime, only=only, lease=lease, pressure=pressure)
    spawner = RaySpawner(lambda actor, resources: recipes.dedicated(settings, actor, resources))
    here.models = lambda: stands(serving.models, charging)
    here.spawning = Spawning(lambda name: runtime.kinds.of(name).kind, spawner, clock)
    answering, care, load = Answering(here), Care(here, settings.host_memory_bytes), Load(here)
    alarm = here.alarm = Alarm(journal, fleet.due, lambda: buckets_of(roster, here.name), clock, log)

    async def keep_house(me: Member) -> None:
        here.name = me.name
        await care.run()

    async def ring(_: Member) -> None:
        await alarm.run()

    async def serve_models(_: Member) -> None:
        await asyncio.gather(serving.run(), charging.run())

    async def feel_pressure(_: Member) -> None:
        await pressure.run()

    others = (ring,) if only is None else (ends_when_asleep(lambda: bool(here.active), clock),)

    return Service(
        role="host" if only is None else "dedicated",
        handler=answering.handle,
        asked=answering.asked,
        feeds=answering.feeds,
        directory=directory,
        clock=clock,
        log=log,
        token=settings.token,
        info={} if only is None else {"actor": str(only)},
        lease=lease,
        report=load.report,
        housekeeping=(lambda _: roster.run(), keep_house, serve_models, feel_pressure, *others),
        closers=(
            serving.aclose,
            charging.aclose,
            links.aclose,
            journal.close,
            directory.close,
            lambda: tracing.close(runtime.tracer),
        ),
    )


async def _ready(ledger: UsageLedger) -> UsageLedger:
    return ledger
