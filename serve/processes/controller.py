"""The controller: hosts, replicas and, on one machine, the embedded servers."""

from __future__ import annotations

import asyncio
from typing import Any

from actors.cluster import RayHosts, RayReplicas
from actors.controller import Controller
from actors.fleet import Fleet
from actors.link import Links
from actors.service import Housekeeping, Service
from actors.serving.manning import Manning
from flotilla.core.clock import Clock, SystemClock
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from flotilla.core.members import Member
from flotilla.core.policy.scaling import Bounds
from flotilla.core.ports import Directory
from flotilla.core.swap_facts import Show
from flotilla.core.versions import FLEET, Placed
from flotilla.stores import valkey
from flotilla.stores.postgres import open_journal
from flotilla.stores.valkey_boards import ValkeyFailureBoard, ValkeyPlanBoard
from models import neighbours
from serve import keeper, recipes
from serve.log import logger
from serve.recipes import recipe
from serve.roster import roster_of
from serve.settings import Settings


class Replicas(RayReplicas):
    """The engines of this machine hear of a replica before its process starts beside them. One of which they can't be
    told starts all the same."""

    async def start(self, name: str, placed: Placed) -> None:
        try:
            neighbours.expect()
        except OSError as error:
            logger("controller").warning("neighbours.not_told", name=name, reason=str(error))
        await super().start(name, placed)


async def wire(settings: Settings) -> Service:
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

    manning = _manning(settings, client, directory, links=links, clock=clock, log=log)

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
    settings: Settings, client: valkey.Client, directory: Directory, *, links: Links, clock: Clock, log: Any
) -> Housekeeping:
    """Replicas as the plans want them. Models whose plan is lost are known from the record."""
    roster = roster_of(settings, directory, valkey.ValkeyPins(client), clock, log)
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
        processes=Replicas(lambda name, placed: recipes.replica(settings, name, placed)),
        links=links,
        clock=clock,
        log=log,
        models=models,
        wake=lambda model: fleet.ask(ActorId(FLEET, "model", model), Show(hang=True)),
    )

    async def run(_: Member) -> None:
        await asyncio.gather(roster.run(), manning.run())

    return run
