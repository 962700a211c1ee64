"""Where actors meet Ray: the only module here that speaks it.

Ray schedules processes onto machines and starts them again when they die. A process is made of a
recipe, the name of a wiring function and its settings; every socket is opened where it is used.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, TypeVar

import msgspec
import ray
from ray.exceptions import RayError

from actors.quiet import quiet
from actors.service import Service
from flotilla.core.actor import Resources
from flotilla.core.errors import Misconfigured, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.members import Member
from flotilla.core.versions import Placed

NAMESPACE = "flotilla"
RETRY_EVERY_S = 1.0
FAILURE_TIMEOUT_S = 1.0

State = Literal["starting", "up", "failed"]
T = TypeVar("T")


class Status(msgspec.Struct, frozen=True, kw_only=True):
    state: State
    detail: str = ""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """`wire` names a function `MODULE:NAME` that makes a `Service` of the settings; `listen` is the
    address for links, the node's own if empty. A `quiet` one gives way to all others until it is made."""

    role: str
    name: str
    wire: str
    settings: Any
    listen: str = ""
    cpus: float = 0.0
    gpus: float = 0.0
    memory_bytes: int = 0
    resources: dict[str, float] = {}
    quiet: bool = False

    @property
    def actor_name(self) -> str:
        return actor_name(self.role, self.name)


class Process:
    """The body of a Ray actor: follows its recipe for as long as the process lives."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._status = Status(state="starting")
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def status(self) -> tuple[str, str]:
        return self._status.state, self._status.detail

    async def _run(self) -> None:
        service = await self._wired()
        if service is None:
            return
        address = self._recipe.listen or ray.util.get_node_ip_address()
        try:
            await service.run(self._recipe.name, address, self._up)
            await asyncio.to_thread(stop, self._recipe.role, self._recipe.name)
        except BaseException:
            service.log.exception("service.down", role=service.role)
        # Let it crash: Ray starts the process again, and nothing of what broke is left in it.
        os._exit(1)

    async def _wired(self) -> Service | None:
        """Tries until the stores are there; None for settings that can't work."""
        while True:
            try:
                return await self._wire()
            except Misconfigured as error:
                self._status = Status(state="failed", detail=str(error))
                return None
            except Exception as error:
                self._status = Status(state="starting", detail=f"{type(error).__name__}: {error}")
            await asyncio.sleep(RETRY_EVERY_S)

    async def _wire(self) -> Service:
        module, _, function = self._recipe.wire.partition(":")
        with quiet() if self._recipe.quiet else nullcontext():
            service = await getattr(importlib.import_module(module), function)(self._recipe.settings)
            calm_collector()
        return service

    def _up(self, member: Member) -> None:
        self._status = Status(state="up", detail=member.address)


def calm_collector() -> None:
    """A full collection stops the loop for 0.5 s where 100,000 sessions are awake. What was loaded to
    start with is never garbage, and by far the most of what comes later is freed by its last reference."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def actor_name(role: str, name: str) -> str:
    """What Ray calls a process."""
    return f"{role}:{name}"


def start(recipe: Recipe) -> None:
    """Starts the recipe's process somewhere in the cluster; one that is there already is left alone."""
    options: dict[str, Any] = {
        "name": recipe.actor_name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_concurrency": 1000,
        "num_cpus": recipe.cpus,
        "num_gpus": recipe.gpus,
        "memory": recipe.memory_bytes or None,
        "resources": recipe.resources,
    }
    body = type(recipe.role.capitalize(), (Process,), {})  # so that `ps` shows what it is
    ray.remote(body).options(**options).remote(recipe)


def stop(role: str, name: str) -> None:
    """Ends a process for good: Ray does not start it again. Nothing if there is none of that name."""
    try:
        actor = ray.get_actor(actor_name(role, name), namespace=NAMESPACE)
    except ValueError:
        return
    ray.kill(actor, no_restart=True)


def names(role: str) -> list[str]:
    """The processes of a role that run, that wait for a place to run, or that are being started again."""
    found: Any = ray.util.list_named_actors(all_namespaces=True)  # of dicts, whatever its annotation says
    here = [entry["name"] for entry in found if entry["namespace"] == NAMESPACE]
    return sorted(name.removeprefix(f"{role}:") for name in here if name.startswith(f"{role}:"))


class RayHosts:
    """Implements `Processes` of the controller. `recipe` makes that of the host of a name."""

    def __init__(self, recipe: Callable[[str], Recipe]) -> None:
        self._recipe = recipe

    async def names(self) -> list[str]:
        return await _translated(names, "host")

    async def start(self, name: str) -> None:
        await _translated(start, self._recipe(name))

    async def stop(self, name: str) -> None:
        await _translated(stop, "host", name)


class RayReplicas:
    """Implements `Replicas` of the manning. `recipe` makes that of the replica of a name."""

    def __init__(self, recipe: Callable[[str, Placed], Recipe]) -> None:
        self._recipe = recipe

    async def names(self) -> list[str]:
        return await _translated(names, "model")

    async def start(self, name: str, placed: Placed) -> None:
        await _translated(start, self._recipe(name, placed))

    async def stop(self, name: str) -> None:
        await _translated(stop, "model", name)

    async def failure(self, name: str) -> str | None:
        found = await asyncio.to_thread(_status_of, actor_name("model", name), FAILURE_TIMEOUT_S)
        return found.detail if found.state == "failed" else None


class RaySpawner:
    """Implements `Spawner`."""

    def __init__(self, recipe: Callable[[ActorId, Resources], Recipe]) -> None:
        self._recipe = recipe

    async def spawn(self, actor: ActorId, resources: Resources) -> None:
        await _translated(start, self._recipe(actor, resources))


async def _translated(call: Callable[..., T], *args: Any) -> T:
    """Beside the loop, as Ray's calls wait for its head. Raises `Unavailable` when that doesn't answer."""
    try:
        return await asyncio.to_thread(call, *args)
    except (RayError, ConnectionError, TimeoutError) as error:
        raise Unavailable(f"Ray does not answer ({type(error).__name__}).", retry_after_s=1.0) from error


def status(recipe: Recipe, timeout_s: float = 2.0) -> Status:
    """How far the recipe's process is; a process that is busy or being restarted is `starting`."""
    return _status_of(recipe.actor_name, timeout_s)


def _status_of(actor_name: str, timeout_s: float) -> Status:
    try:
        actor = ray.get_actor(actor_name, namespace=NAMESPACE)
        state, detail = ray.get(actor.status.remote(), timeout=timeout_s)
    except (ValueError, RayError) as error:
        return Status(state="starting", detail=type(error).__name__)
    return Status(state=state, detail=detail)


def wait_up(recipe: Recipe, timeout_s: float) -> None:
    """Raises `Misconfigured` with the process's own reason, `Unavailable` when the time is up."""
    until, last = time.monotonic() + timeout_s, ""
    while time.monotonic() < until:
        now = status(recipe)
        if now.state == "up":
            return
        if now.state == "failed":
            raise Misconfigured(f"{recipe.actor_name} can't start: {now.detail}")
        last = now.detail or last
        time.sleep(0.2)
    raise Unavailable(
        f"{recipe.actor_name} was not up after {timeout_s:g} s ({last or 'no word from it'}).",
        next="See the logs.",
    )
