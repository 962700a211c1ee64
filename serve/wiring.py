"""The composition root: the one place where ports meet the things behind them.

Each function follows the recipe of one kind of process. Heavy imports happen inside, so that a
process loads what it runs and nothing else.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from actors.doors import RemoteKnowledge, RemoteModel, answer_knowledge, answer_model
from actors.fleet import Fleet
from actors.host import Host
from actors.link import Links
from actors.roster import Roster
from actors.service import Service
from actors.work import Work
from flotilla.core.clock import Clock, SystemClock
from flotilla.core.errors import Overloaded
from flotilla.core.ports import Model
from flotilla.stores import valkey
from flotilla.stores.postgres import PostgresJournal, open_journal
from serve.log import logger
from serve.settings import Settings

WATCH_EVERY_S = 1.0


async def host(settings: Settings) -> Service:
    log, clock = logger("host"), SystemClock()
    journal = await open_journal(settings.database_url)
    client = valkey.connect(settings.redis_url)
    directory = valkey.ValkeyDirectory(client)
    links = Links(settings.token)
    roster = Roster(directory, clock, log, "host", "model", "librarian")
    work = Work(
        journal=journal,
        hot_log=valkey.ValkeyHotLog(client),
        knowledge=RemoteKnowledge(links, roster),
        model=RemoteModel(links, roster),
        clock=clock,
        log=log,
    )
    here = Host(work)
    return Service(
        role="host",
        handler=here.answer,
        directory=directory,
        clock=clock,
        log=log,
        token=settings.token,
        housekeeping=(lambda _: roster.run(), lambda me: here.run(me, lambda: roster.members("host"))),
        closers=(links.aclose, journal.close, directory.close),
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
        self.roster = Roster(self.directory, self.clock, self.log, "host", "model", "librarian")
        self.fleet = Fleet(self.links, self.roster, self.clock)
        self.knowledge = RemoteKnowledge(self.links, self.roster)
        self.model = RemoteModel(self.links, self.roster)
        self._journal: PostgresJournal | None = None
        self._opening = asyncio.Lock()

    async def journal(self) -> PostgresJournal:
        """Opened when first read from, so that a gateway starts while PostgreSQL is down."""
        async with self._opening:
            if self._journal is None:
                self._journal = await open_journal(self.settings.database_url)
            return self._journal

    async def aclose(self) -> None:
        await self.links.aclose()
        await self.directory.close()
        if self._journal is not None:
            await self._journal.close()
