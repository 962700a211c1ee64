"""The composition root: the one place where ports meet the things behind them.

Each function follows the recipe of one kind of process. Heavy imports happen inside, so that a
process loads what it runs and nothing else.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

from actors.alarm import Alarm
from actors.answering import Answering
from actors.buckets import buckets_of
from actors.care import Care
from actors.cluster import RayHosts, RaySpawner
from actors.controller import Controller
from actors.dedicated import Alone, Spawning, ends_when_asleep
from actors.doors import RemoteKnowledge, RemoteModel, answer_knowledge, answer_model
from actors.doorways import Doorways, dedicated_kinds, find_residents
from actors.fleet import Fleet
from actors.host import Host
from actors.lease import Lease
from actors.link import Links
from actors.load import Load
from actors.overview import Overview
from actors.roster import Roster
from actors.runtime import Kinds, Runtime
from actors.service import Service
from flotilla.core.clock import Clock, SystemClock
from flotilla.core.errors import Overloaded
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from flotilla.core.members import Member
from flotilla.core.policy.scaling import Bounds
from flotilla.core.ports import Directory, Letters, Model, Pins
from flotilla.stores import valkey
from flotilla.stores.postgres import PostgresJournal, open_journal
from serve import keeper, recipes, tracing
from serve.log import logger
from serve.recipes import recipe
from serve.settings import Settings
from serve.tracing import tracer_of

WATCH_EVERY_S = 1.0


async def host(settings: Settings) -> Service:
    return await host_service(settings)


async def host_service(settings: Settings, only: ActorId | None = None) -> Service:
    """A host of many actors or, with `only`, of a single one that has the process for itself."""
    log, clock, lease = logger("host"), SystemClock(), Lease()
    journal = await open_journal(settings.database_url, secret=settings.secret)
    client = valkey.connect(settings.redis_url)
    directory = valkey.ValkeyDirectory(client)
    links = Links(settings.token)
    roster = _roster(settings, directory, valkey.ValkeyPins(client), clock, log)
    fleet = Fleet(links, roster, clock, log)
    letters = journal.letters
    doors = Doorways(
        knowledge=RemoteKnowledge(links, roster),
        model=RemoteModel(links, roster),
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
    here = Host(runtime, only=only, lease=lease)
    spawner = RaySpawner(lambda actor, resources: recipes.dedicated(settings, actor, resources))
    here.spawning = Spawning(lambda name: runtime.kinds.of(name).kind, spawner, clock)
    answering, care, load = Answering(here), Care(here, settings.host_memory_bytes), Load(here)
    alarm = here.alarm = Alarm(journal, fleet.due, lambda: buckets_of(roster, here.name), clock, log)

    async def keep_house(me: Member) -> None:
        here.name = me.name
        await care.run()

    async def ring(_: Member) -> None:
        await alarm.run()

    others = (ring,) if only is None else (ends_when_asleep(lambda: bool(here.active), clock),)

    return Service(
        role="host" if only is None else "dedicated",
        handler=answering.handle,
        asked=answering.asked,
        directory=directory,
        clock=clock,
        log=log,
        token=settings.token,
        info={} if only is None else {"actor": str(only)},
        lease=lease,
        report=load.report,
        housekeeping=(lambda _: roster.run(), keep_house, *others),
        closers=(links.aclose, journal.close, directory.close, lambda: tracing.close(runtime.tracer)),
    )


async def dedicated(alone: Alone) -> Service:
    """The process of one actor of a dedicated kind."""
    return await host_service(alone.settings, only=alone.actor)


async def controller(settings: Settings) -> Service:
    log, clock = logger("controller"), SystemClock()
    client = valkey.connect(settings.redis_url)
    directory, links = valkey.ValkeyDirectory(client), Links(settings.token)
    here = Controller(
        directory=directory,
        pins=valkey.ValkeyPins(client),
        processes=RayHosts(lambda name: recipe(settings, "host", name)),
        links=links,
        clock=clock,
        log=log,
        bounds=Bounds(least=settings.hosts, most=settings.hosts_max, activations_max=LIMITS.activations_max),
    )

    async def keep_stores(_: Member) -> None:
        await keeper.keep(settings, clock, log)

    return Service(
        role="controller",
        handler=here.answer,
        directory=directory,
        clock=clock,
        log=log,
        token=settings.token,
        housekeeping=(lambda _: here.run(), keep_stores),
        closers=(links.aclose, directory.close),
    )


def _roster(settings: Settings, directory: Directory, pins: Pins, clock: Clock, log: Any) -> Roster:
    return Roster(
        directory,
        clock,
        log,
        "host",
        "model",
        "librarian",
        "dedicated",
        pins=pins,
        dedicated=dedicated_kinds(settings.kinds),
    )


async def librarian(settings: Settings) -> Service:
    from flotilla.stores.lance import LanceKnowledge  # noqa: PLC0415
    from models.embedder import MiniLM  # noqa: PLC0415

    log, clock = logger("librarian"), SystemClock()
    embedder = MiniLM(threads=settings.embedder_threads)
    await embedder.ping()
    knowledge = LanceKnowledge(settings.lance_uri, embedder)
    await knowledge.ping()
    directory = valkey.ValkeyDirectory(valkey.connect(settings.redis_url))
    return Service(
        role="librarian",
        handler=answer_knowledge(knowledge),
        directory=directory,
        clock=clock,
        log=log,
        token=settings.token,
        info={"embedder": embedder.name},
        closers=(knowledge.close, embedder.close, directory.close),
    )


async def model(settings: Settings) -> Service:
    log, clock = logger("model"), SystemClock()
    engine = await _engine(settings)
    await engine.ping()
    directory = valkey.ValkeyDirectory(valkey.connect(settings.redis_url))
    return Service(
        role="model",
        handler=answer_model(engine),
        directory=directory,
        clock=clock,
        log=log,
        token=settings.token,
        info={"name": engine.name},
        housekeeping=(lambda _: _watch(engine, clock),),
        closers=(engine.close, directory.close),
    )


async def _watch(engine: Model, clock: Clock) -> None:
    """Ends, by raising, with its engine: a process around a dead engine would refuse everything for ever."""
    while True:
        with suppress(Overloaded):  # busy is alive
            await engine.ping()
        await clock.sleep(WATCH_EVERY_S)


async def _engine(settings: Settings) -> Model:
    if settings.model == "scripted":
        from models.scripted import ScriptedModel, ScriptSettings  # noqa: PLC0415

        script = ScriptSettings(
            mode="quote",
            seed=settings.scripted_seed,
            token_s=settings.scripted_token_s,
            first_token_s=settings.scripted_first_token_s,
        )
        return ScriptedModel(script)
    from models.paged import VllmModel  # noqa: PLC0415
    from models.settings import EngineSettings  # noqa: PLC0415

    weights, name = weights_of(settings)
    return await VllmModel.open(
        EngineSettings(weights=str(weights), name=name, threads=settings.model_threads)
    )


def weights_of(settings: Settings) -> tuple[Path, str]:
    """The folder of the weights and the name to show. Converts the packaged weights once."""
    from models import weights  # noqa: PLC0415

    if settings.model != "smollm2":
        folder = Path(settings.model)
        weights.check(folder)
        return folder, folder.name
    return weights.prepare(settings.cache), "SmolLM2-135M-Instruct"


class Doors:
    """What a gateway needs of the world."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log = logger("gateway")
        self.clock = SystemClock()
        client = valkey.connect(settings.redis_url)
        self.directory = valkey.ValkeyDirectory(client)
        self.once = valkey.ValkeyOnce(client)
        self.links = Links(settings.token)
        self.pins = valkey.ValkeyPins(client)
        self.roster = _roster(settings, self.directory, self.pins, self.clock, self.log)
        self.fleet = Fleet(self.links, self.roster, self.clock, self.log)
        self.knowledge = RemoteKnowledge(self.links, self.roster)
        self.model = RemoteModel(self.links, self.roster)
        self.overview = Overview(self.links, self.roster, self.directory, self.pins)
        tracer = tracer_of(settings, "gateway", self.log)
        self.traces = tracing.Traces(tracer, self.clock, settings.trace_share)
        self._journal: PostgresJournal | None = None
        self._opening = asyncio.Lock()

    async def journal(self) -> PostgresJournal:
        """Opened when first read from, so that a gateway starts while PostgreSQL is down."""
        async with self._opening:
            if self._journal is None:
                self._journal = await open_journal(self.settings.database_url, secret=self.settings.secret)
            return self._journal

    async def letters(self) -> Letters:
        return (await self.journal()).letters

    async def aclose(self) -> None:
        await self.links.aclose()
        await self.directory.close()
        if self._journal is not None:
            await self._journal.close()
        await tracing.close(self.traces.tracer)
