"""Wiring functions of replicas with scripted engines: what they serve comes with their settings."""

from __future__ import annotations

import structlog

from actors.cluster import Recipe
from actors.service import Service
from actors.serving.replica import Replica
from actors.serving.watching import watch
from flotilla.core.clock import SystemClock
from flotilla.core.errors import Misconfigured
from flotilla.core.versions import Placed, Version
from flotilla.stores import valkey
from models.script import ScriptSettings
from models.scripted import ScriptedModel
from tests.actors.membership import TOKEN


def recipe_at(url: str, name: str, placed: Placed) -> Recipe:
    return Recipe(
        role="model",
        name=name,
        wire="tests.cluster.replica_wires:replica",
        settings=(url, placed.version),
        listen="127.0.0.1",
        cpus=placed.cpus,
    )


async def fetch(uri: str, checksum: str) -> str:
    raise Misconfigured(f"There are no weights at {uri}.", field="source")


async def replica(settings: tuple[str, Version]) -> Service:
    """Raises `Misconfigured` for a version whose weights should be anywhere."""
    url, version = settings
    clock, log = SystemClock(), structlog.get_logger("tests")
    if version.source:
        await fetch(version.source, version.checksum)
    engine = ScriptedModel(ScriptSettings(name=version.id, first_token_s=0.0, token_s=0.0), clock)
    here = Replica(engine, version, fetch, clock, log)
    await here.warm()
    directory = valkey.ValkeyDirectory(valkey.connect(url))
    return Service(
        role="model",
        handler=here.handle,
        directory=directory,
        clock=clock,
        log=log,
        token=TOKEN,
        info=here.info,
        report=here.report,
        housekeeping=(lambda _: watch(here, clock),),
        closers=(engine.close, directory.close),
    )
