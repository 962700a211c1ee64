"""A replica that embeds, and ranks, for whoever asks."""

from __future__ import annotations

from functools import partial

from actors.service import Service
from actors.serving.embedding import answer_embedder
from actors.serving.shelf import Shelf
from flotilla.core.clock import SystemClock
from flotilla.stores import valkey
from serve.log import logger
from serve.settings import Settings


async def wire(settings: Settings) -> Service:
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
