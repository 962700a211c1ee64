"""Puts a fleet onto a Ray cluster: `python -m serve.deploy`, with its settings in the environment.

Says each step on standard output, a JSON object a line, for whoever shows them to a person.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import msgspec
import ray

from actors import cluster
from actors.cluster import Recipe
from flotilla.core.errors import FlotillaError, Unavailable
from flotilla.core.versions import Placed, Plans, replica_name
from flotilla.stores import valkey
from flotilla.stores.postgres import migrate, open_journal
from flotilla.stores.valkey_boards import ValkeyPlanBoard
from models.sources import fetch
from serve import gateway
from serve.bootstrap import introduce
from serve.recipes import recipe, replica
from serve.settings import Settings, read_settings
from serve.versions import default_version, placed

UP_TIMEOUT_S = 240.0
HOST_UP_TIMEOUT_S = 60.0


def recipes(settings: Settings, gpus: float, plans: Plans) -> list[Recipe]:
    """The processes of a fleet: the slow ones first, the controller when there is something to control."""
    models = _replicas(settings, placed(settings, gpus), plans)
    hosts = [recipe(settings, "host", f"host-{n}") for n in range(settings.hosts)]
    librarian, controller = (recipe(settings, role, f"{role}-0") for role in ("librarian", "controller"))
    embedders = [recipe(settings, "embedder", f"embedder-{n}") for n in range(settings.embedders)]
    return [*models, *embedders, librarian, *hosts, controller]


def _replicas(settings: Settings, default: Placed, plans: Plans) -> list[Recipe]:
    """Those of the default version, under the names that the controller gives; they are its own from then
    on. None if another version has been promoted since: the controller starts that. One that is known under
    the name stays what it was, whatever the settings say by now."""
    plan = plans.get(default.version.model)
    if plan and plan.route and plan.route.stable != default.version.id:
        return []
    known = plan and plan.versions.get(default.version.id)
    default = msgspec.structs.replace(default, version=known or default.version)
    names = [replica_name(default.version.id, n) for n in range(settings.models)]
    return [replica(settings, name, default) for name in names]


def deploy(settings: Settings) -> None:
    _say("stores answer, schema up to date", "begun")
    plans = asyncio.run(_prepare_stores(settings))
    _say("stores answer, schema up to date", "done")
    _say("weights", "begun")
    asyncio.run(_fetch(settings))
    _say("weights", "done")
    gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
    parts = recipes(settings, gpus, plans)
    for part in parts:
        _say(part.actor_name, "begun")
        cluster.start(part)
    _say("gateway", "begun")
    gateway.run(settings)
    _say("gateway", "done")
    _wait_up([part for part in parts if part.role != "model"], HOST_UP_TIMEOUT_S)
    asyncio.run(introduce(settings, gpus))
    _wait_up([part for part in parts if part.role == "model"], UP_TIMEOUT_S)


def _wait_up(parts: list[Recipe], timeout_s: float) -> None:
    for part in reversed(parts):
        cluster.wait_up(part, timeout_s)
        _say(part.actor_name, "done")


async def _fetch(settings: Settings) -> None:
    """Where a person sees how it goes, and before anything is started."""
    version = default_version(settings)
    if version.source:
        await fetch(version.source, version.checksum, settings.cache)


async def _prepare_stores(settings: Settings) -> Plans:
    await migrate(settings.database_url)
    await (await open_journal(settings.database_url, secret=settings.secret)).close()  # that it can be
    client = valkey.connect(settings.redis_url)
    try:
        await valkey.ValkeyDirectory(client).ping()
        return await ValkeyPlanBoard(client).plans()
    except Unavailable as error:
        raise Unavailable(
            f"No Redis answers at REDIS_URL: {error.detail}",
            field="REDIS_URL",
            next="Start it, or unset REDIS_URL to use the embedded one.",
        ) from None
    finally:
        await client.aclose()


def _say(step: str, state: str, detail: str = "", field: str = "") -> None:
    said = {"step": step, "state": state, "detail": detail, "field": field}
    print(msgspec.json.encode(said).decode(), flush=True)  # noqa: T201


def connect() -> None:
    """To the cluster of the environment, FLOTILLA_RAY_ADDRESS."""
    ray.init(
        address=os.environ["FLOTILLA_RAY_ADDRESS"],
        namespace=cluster.NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def main() -> None:
    try:
        settings = read_settings()
        connect()
        deploy(settings)
    except FlotillaError as error:
        detail = f"{error.field}: {error}" if error.field else str(error)
        _say("deploy", "failed", detail, error.field or "")
        sys.exit(1)


if __name__ == "__main__":
    main()
