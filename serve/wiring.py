"""The composition root: the one place where ports meet the things behind them.

Each function follows the recipe of one kind of process. Heavy imports happen inside, so that a
process loads what it runs and nothing else.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from actors.alarm import Alarm
from actors.answering import Answering
from actors.buckets import buckets_of
from actors.care import Care
from actors.cluster import RayHosts, RayReplicas, RaySpawner
from actors.controller import Controller
from actors.dedicated import Alone, Spawning, ends_when_asleep
from actors.doors import RemoteKnowledge
from actors.doorways import Doorways, dedicated_kinds, find_residents
from actors.fleet import Fleet
from actors.host import Host
from actors.lease import Lease
from actors.link import Links
from actors.load import Load
from actors.overview import Overview
from actors.roster import Roster
from actors.runtime import Kinds, Runtime
from actors.service import Housekeeping, Service
from actors.serving.allowances import Allowances
from actors.serving.charging import Charging
from actors.serving.embedding import RemoteEmbedder, RemoteReranker, RerankerOpener, Shelf, answer_embedder
from actors.serving.librarian import Embedders, Opener, Reembedder, answer_librarian
from actors.serving.manning import Manning
from actors.serving.replica import Replica
from actors.serving.watching import watch
from flotilla.core.clock import Clock, SystemClock
from flotilla.core.errors import Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from flotilla.core.members import Member
from flotilla.core.policy.scaling import Bounds
from flotilla.core.ports import Directory, Letters, Pins, Reranker
from flotilla.core.versions import Version
from flotilla.stores import valkey
from flotilla.stores.postgres import PostgresJournal, open_journal
from flotilla.stores.valkey_boards import ValkeyFailureBoard, ValkeyPlanBoard
from models.engines import open_engine
from models.sources import fetch
from serve import keeper, recipes, tracing
from serve.log import logger
from serve.recipes import recipe
from serve.serving import Serving
from serve.settings import Settings
from serve.tracing import tracer_of
from serve.versions import Manned

WATCH_EVERY_S = 1.0
EMBEDDERS_UP_TIMEOUT_S = 50.0


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
    serving = Serving(settings, client, links, roster, clock, log)
    charging = Charging(lambda: _ready(journal.ledger), clock, log)
    doors = Doorways(
        knowledge=RemoteKnowledge(links, roster),
        model=serving.models,
        board=serving.board,
        tallies=serving.tallies,
        replicas=serving.replicas,
        bills=Bills(charging, serving.models, clock),
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

    async def serve_models(_: Member) -> None:
        await asyncio.gather(serving.run(), charging.run())

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
        housekeeping=(lambda _: roster.run(), keep_house, serve_models, *others),
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

    manning = _manning(settings, client, directory, links, clock, log)

    async def keep_stores(_: Member) -> None:
        await keeper.keep(settings, clock, log)

    return Service(
        role="controller",
        handler=here.answer,
        directory=directory,
        clock=clock,
        log=log,
        token=settings.token,
        housekeeping=(lambda _: here.run(), keep_stores, manning),
        closers=(links.aclose, directory.close),
    )


def _manning(
    settings: Settings, client: valkey.Client, directory: Directory, links: Links, clock: Clock, log: Any
) -> Housekeeping:
    """Replicas as the plans want them. Models whose plan is lost are known from the record."""
    roster = _roster(settings, directory, valkey.ValkeyPins(client), clock, log)
    fleet = Fleet(links, roster, clock, log)

    async def models() -> list[str]:
        journal = await open_journal(settings.database_url, secret=settings.secret)
        try:
            return [actor.name for actor, _ in await journal.actors(FLEET, "model", limit=LIMITS.page_max)]
        finally:
            await journal.close()

    manning = Manning(
        directory=directory,
        board=ValkeyPlanBoard(client),
        failures=ValkeyFailureBoard(client),
        processes=RayReplicas(lambda name, placed: recipes.replica(settings, name, placed)),
        links=links,
        clock=clock,
        log=log,
        models=models,
        wake=lambda model: fleet.ask(ActorId(FLEET, "model", model), Show()),
    )

    async def run(_: Member) -> None:
        await asyncio.gather(roster.run(), manning.run())

    return run


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
    from flotilla.stores.lance_orders import LanceOrders  # noqa: PLC0415
    from models.embedders import DEFAULT  # noqa: PLC0415

    log, clock = logger("librarian"), SystemClock()
    directory = valkey.ValkeyDirectory(valkey.connect(settings.redis_url))
    links, roster = Links(settings.token), Roster(directory, clock, log, "embedder")
    opener, reranker = _encoders(settings, links, roster)
    await _embedders_up(settings, roster, clock)
    embedders = Embedders(LanceOrders(settings.lance_uri), opener, DEFAULT)
    embedder = await embedders.first(log)
    knowledge = LanceKnowledge(
        settings.lance_uri,
        embedder,
        find=embedders.find,
        reranker=await reranker(reranker_version(settings)) if settings.reranker else None,
    )
    await knowledge.ping()
    reembedder = Reembedder(knowledge, embedders, clock, log)
    return Service(
        role="librarian",
        handler=answer_librarian(knowledge, reembedder),
        directory=directory,
        clock=clock,
        log=log,
        token=settings.token,
        info={"embedder": embedder.name},
        report=reembedder.report,
        housekeeping=(reembedder.run, *((lambda _: roster.run(),) if settings.embedders else ())),
        closers=(knowledge.close, embedders.close, links.aclose, directory.close),
    )


def _encoders(settings: Settings, links: Links, roster: Roster) -> tuple[Opener, RerankerOpener]:
    """In this process or, if there are replicas of their own, behind links."""
    from models.embedders import open_embedder, open_reranker  # noqa: PLC0415

    threads = settings.embedder_threads
    if not settings.embedders:
        return partial(open_embedder, threads=threads), partial(open_reranker, threads=threads)

    async def remote(version: Version) -> Reranker:
        return RemoteReranker(links, roster, version)

    return partial(RemoteEmbedder.open, links, roster), remote


async def _embedders_up(settings: Settings, roster: Roster, clock: Clock) -> None:
    """Waits for the first replica, if there are to be any. Raises `Unavailable` when the time is up."""
    until = clock.monotonic() + EMBEDDERS_UP_TIMEOUT_S
    while settings.embedders:
        await roster.refresh()
        if roster.members("embedder"):
            return
        if clock.monotonic() > until:
            raise Unavailable("No embedder has come up.", next="Look into its log.", retry_after_s=5.0)
        await clock.sleep(WATCH_EVERY_S)


def reranker_version(settings: Settings) -> Version:
    return Version(model="reranker", name="1", engine="cross-encoder", source=settings.reranker)


async def embedder(settings: Settings) -> Service:
    """A replica that embeds, and ranks, for whoever asks."""
    from models.embedders import DEFAULT, open_embedder, open_reranker  # noqa: PLC0415

    log, clock = logger("embedder"), SystemClock()
    threads = settings.embedder_threads
    embedders = Shelf(partial(open_embedder, threads=threads))
    rerankers = Shelf(partial(open_reranker, threads=threads))
    await embedders.open(DEFAULT)
    directory = valkey.ValkeyDirectory(valkey.connect(settings.redis_url))
    return Service(
        role="embedder",
        handler=answer_embedder(embedders, rerankers),
        directory=directory,
        clock=clock,
        log=log,
        token=settings.token,
        info=lambda: {"versions": " ".join((*embedders.names, *rerankers.names))},
        report=lambda: ("up", {"waiting": float(embedders.waiting + rerankers.waiting)}),
        closers=(embedders.close, rerankers.close, directory.close),
    )


async def model(part: Manned) -> Service:
    """A replica: it says that it is up once it has generated a token."""
    settings, version = part.settings, part.version
    log, clock = logger("model"), SystemClock()

    async def fetched(uri: str, checksum: str) -> str:
        return str(await fetch(uri, checksum, settings.cache))

    folder = await fetched(version.source, version.checksum) if version.source else ""
    engine = await open_engine(version, folder, threads=settings.model_threads)
    replica = Replica(engine, version, fetched, clock, log)
    await replica.warm()
    directory = valkey.ValkeyDirectory(valkey.connect(settings.redis_url))
    return Service(
        role="model",
        handler=replica.handle,
        directory=directory,
        clock=clock,
        log=log,
        token=settings.token,
        info=replica.info,
        report=replica.report,
        housekeeping=(lambda _: watch(replica, clock),),
        closers=(engine.close, directory.close),
    )


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
        serving = self.serving = Serving(settings, client, self.links, self.roster, self.clock, self.log)
        self.model, self.board, self.tallies = serving.models, serving.board, serving.tallies
        self.embedder = LibrarianEmbedder(self.links, self.roster)
        self.allowances = Allowances(self.ledger, self.clock, self.log, default=settings.allowance)
        self.charging = Charging(self.ledger, self.clock, self.log, heard=self.allowances.heard)
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

    async def ledger(self) -> UsageLedger:
        return (await self.journal()).ledger

    async def run(self) -> None:
        """Until cancelled: keeps up with the fleet."""
        await asyncio.gather(self.roster.run(), self.serving.run(), self.charging.run())

    async def aclose(self) -> None:
        await self.serving.aclose()
        await self.charging.aclose()
        await self.links.aclose()
        await self.directory.close()
        if self._journal is not None:
            await self._journal.close()
        await tracing.close(self.traces.tracer)
