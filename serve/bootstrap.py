"""Tells the models' actors what the settings say: once the hosts are up, and as often as one likes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from actors.fleet import Fleet
from actors.link import Links
from actors.roster import Roster
from flotilla.core.clock import SystemClock
from flotilla.core.errors import Conflict, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.swap_facts import AddVersion, Serve
from flotilla.core.swap_views import ModelView
from flotilla.core.versions import FLEET, Placed, Plans, Version
from flotilla.stores import valkey
from flotilla.stores.valkey_boards import ValkeyPlanBoard
from serve.log import logger
from serve.settings import Settings
from serve.versions import BY, PLAIN, placed

PATIENCE_S = 60.0
PAUSE_S = 0.3


async def introduce(settings: Settings, gpus: float) -> None:
    """Has the default model serve, and the plain one stand in for it. What people have changed since stays:
    another version that was promoted goes on serving. Models of earlier settings get no replicas.

    Raises `Unavailable` if no host answers."""
    log, clock, links = logger("deploy"), SystemClock(), Links(settings.token)
    client = valkey.connect(settings.redis_url)
    roster = Roster(valkey.ValkeyDirectory(client), clock, log, "host")
    fleet = Fleet(links, roster, clock, log)
    try:
        await _hosts(roster)
        default = placed(settings, gpus)
        await _add(fleet, PLAIN)
        await fleet.ask(_actor(PLAIN.model), Serve(version=PLAIN.id, least=0, most=1, by=BY))
        await _serve(fleet, default)
        await _rest(fleet, await ValkeyPlanBoard(client).plans(), default.version.model)
    finally:
        await links.aclose()
        await client.aclose()


async def _hosts(roster: Roster) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not roster.members("host"):
            with suppress(Unavailable):
                await roster.refresh()
            await asyncio.sleep(PAUSE_S)


async def _serve(fleet: Fleet, default: Placed) -> None:
    version = default.version
    await _add(fleet, version)
    serve = Serve(
        version=version.id,
        least=default.least,
        most=default.most,
        cpus=default.cpus,
        gpus=default.gpus,
        fallbacks=(PLAIN.id,),
        by=BY,
    )
    await fleet.ask(_actor(version.model), serve)


async def _add(fleet: Fleet, version: Version) -> None:
    """The one that is known under this name stays: a release may describe it in other words."""
    try:
        await fleet.ask(_actor(version.model), AddVersion(version=version, by=BY))
    except Conflict as error:  # whoever has changed the settings should hear why nothing changes
        logger("deploy").warning("version.stays", version=version.id, reason=error.detail, next=error.next)


async def _rest(fleet: Fleet, plans: Plans, default: str) -> None:
    """What earlier settings have brought, and nobody has swapped since, needs no memory now."""
    for plan in plans.values():
        if plan.model in (default, PLAIN.model) or plan.route is None:
            continue
        shown: ModelView = await fleet.ask(_actor(plan.model), _show())
        if shown.added_by.get(plan.route.stable) == BY:
            await fleet.ask(_actor(plan.model), Serve(least=0, most=1, by=BY))


def _show() -> Serve:
    """`Serve` without wishes changes nothing and shows the model."""
    return Serve(by=BY)


def _actor(model: str) -> ActorId:
    return ActorId(FLEET, "model", model)
