"""A replica of a model: one engine, one version."""

from __future__ import annotations

from actors.service import Service
from actors.serving.replica import Replica
from actors.serving.watching import watch
from flotilla.core.clock import SystemClock
from flotilla.stores import valkey
from models.engines import open_engine
from models.sources import fetch
from serve.log import logger
from serve.versions import Manned


async def wire(part: Manned) -> Service:
    """A replica: it says that it is up once it has generated a token. (Its recipe is quiet until then.)"""
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
