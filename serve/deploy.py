"""Puts a fleet onto a Ray cluster: `python -m serve.deploy`, with its settings in the environment.

It checks first what can be checked without Ray. Each step is said as it begins and ends (`serve.steps`).
"""

from __future__ import annotations

import asyncio
import logging
import os

import msgspec
import ray

from actors import cluster
from actors.cluster import Recipe
from flotilla.core.versions import Placed, Plans, replica_name
from serve import gateway
from serve.bootstrap import introduce
from serve.checks import check
from serve.recipes import recipe, replica
from serve.settings import Settings, read_settings
from serve.steps import say, step, told
from serve.versions import placed

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


def deploy(settings: Settings, plans: Plans) -> None:
    gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
    parts = recipes(settings, gpus, plans)
    for part in parts:
        say(part.actor_name, "begun")
        cluster.start(part)
    with step("gateway"):
        gateway.run(settings)
    _wait_up([part for part in parts if part.role != "model"], HOST_UP_TIMEOUT_S)
    asyncio.run(introduce(settings, gpus))
    _wait_up([part for part in parts if part.role == "model"], UP_TIMEOUT_S)


def _wait_up(parts: list[Recipe], timeout_s: float) -> None:
    for part in reversed(parts):
        cluster.wait_up(part, timeout_s)
        say(part.actor_name, "done")


def connect() -> None:
    """To the cluster of the environment, FLOTILLA_RAY_ADDRESS."""
    ray.init(
        address=os.environ["FLOTILLA_RAY_ADDRESS"],
        namespace=cluster.NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def main() -> None:
    settings = read_settings()
    plans = check(settings)
    connect()
    deploy(settings, plans)


if __name__ == "__main__":
    told(main)
