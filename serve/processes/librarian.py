"""The librarian: LanceDB and, unless replicas of their own do it, the embedder."""

from __future__ import annotations

from functools import partial

from actors.link import Links
from actors.roster import Roster
from actors.service import Service
from actors.serving.embedding import RemoteEmbedder, RemoteReranker, RerankerOpener
from actors.serving.librarian import Embedders, Opener, Reembedder, answer_librarian
from flotilla.core.clock import Clock, SystemClock
from flotilla.core.errors import Unavailable
from flotilla.core.ports import Reranker
from flotilla.core.versions import Version
from flotilla.stores import valkey
from serve.log import logger
from serve.settings import Settings

LOOK_EVERY_S = 1.0
EMBEDDERS_UP_TIMEOUT_S = 50.0


async def wire(settings: Settings) -> Service:
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
        info=reembedder.info,
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
        await clock.sleep(LOOK_EVERY_S)


def reranker_version(settings: Settings) -> Version:
    return Version(model="reranker", name="1", engine="cross-encoder", source=settings.reranker)
