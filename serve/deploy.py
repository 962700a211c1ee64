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
from flotilla.stores import valkey
from flotilla.stores.postgres import migrate
from serve import gateway
from serve.recipes import recipe
from serve.settings import Settings, read_settings
from serve.wiring import weights_of

UP_TIMEOUT_S = 240.0
HOST_UP_TIMEOUT_S = 60.0


def recipes(settings: Settings) -> list[Recipe]:
    """The processes of a fleet: the slow ones first, the controller when there is something to control."""
    gpus = 1.0 if settings.model != "scripted" and ray.cluster_resources().get("GPU") else 0.0
    models = [recipe(settings, "model", f"model-{n}", gpus) for n in range(settings.models)]
    hosts = [recipe(settings, "host", f"host-{n}") for n in range(settings.hosts)]
    librarian, controller = (recipe(settings, role, f"{role}-0") for role in ("librarian", "controller"))
    return [*models, librarian, *hosts, controller]


def deploy(settings: Settings) -> None:
    _say("stores answer, schema up to date", "begun")
    asyncio.run(_prepare_stores(settings))
    _say("stores answer, schema up to date", "done")
    _say("weights", "begun")
    if settings.model != "scripted":
        weights_of(settings)
    _say("weights", "done")
    parts = recipes(settings)
    for part in parts:
        _say(part.actor_name, "begun")
        cluster.start(part)
    _say("gateway", "begun")
    gateway.run(settings)
    _say("gateway", "done")
    for part in reversed(parts):
        cluster.wait_up(part, UP_TIMEOUT_S if part.role == "model" else HOST_UP_TIMEOUT_S)
        _say(part.actor_name, "done")


async def _prepare_stores(settings: Settings) -> None:
    await migrate(settings.database_url)
    client = valkey.connect(settings.redis_url)
    try:
        await valkey.ValkeyDirectory(client).ping()
    except Unavailable as error:
        raise Unavailable(
            f"No Redis answers at REDIS_URL: {error.detail}",
            field="REDIS_URL",
            next="Start it, or unset REDIS_URL to use the embedded one.",
        ) from None
    finally:
        await client.aclose()


def _say(step: str, state: str, detail: str = "") -> None:
    print(msgspec.json.encode({"step": step, "state": state, "detail": detail}).decode(), flush=True)  # noqa: T201


def main() -> None:
    try:
        settings = read_settings()
        ray.init(
            address=os.environ["FLOTILLA_RAY_ADDRESS"],
            namespace=cluster.NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        deploy(settings)
    except FlotillaError as error:
        detail = f"{error.field}: {error}" if error.field else str(error)
        _say("deploy", "failed", detail)
        sys.exit(1)


if __name__ == "__main__":
    main()
