"""What the performers of a host may use: the doors to the world, opened once for all of them."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import msgspec

from actors.runtime import Resident
from actors.serving.bills import Bills
from flotilla.core.actor import Actor
from flotilla.core.clock import Clock
from flotilla.core.errors import Misconfigured
from flotilla.core.limits import LIMITS, Limits
from flotilla.core.ports import HotLog, Knowledge, Letters, ModelDoor, PlanBoard, TallyBoard

RESIDENTS = "actors.residents"


def _spawn(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _spawned.add(task)
    task.add_done_callback(_spawned.discard)


_spawned: set[asyncio.Task[None]] = set()


class Doorways(msgspec.Struct, kw_only=True):
    """`board`, `tallies` and `replicas` are what the actors of the models need; a host without models has
    none. `judges` are the modules of an operator's own judges."""

    knowledge: Knowledge
    model: ModelDoor
    hot_log: HotLog
    letters: Letters
    clock: Clock
    log: Any
    board: PlanBoard | None = None
    tallies: TallyBoard | None = None
    replicas: Any = None
    bills: Bills | None = None
    judges: Sequence[str] = ()
    limits: Limits = LIMITS
    may_show: Callable[[], bool] = lambda: True
    spawn: Callable[[Coroutine[Any, Any, None]], None] = _spawn


def find_residents(doors: Doorways, modules: Sequence[str] = ()) -> Iterator[Resident]:
    """The kinds of the folder `actors/residents`, then those of `modules`: a module's own function
    `residents(doors)` gives them; without one they are the `Actor` classes that it defines."""
    for module in (*_own_modules(), *modules):
        found = _import(module)
        if hasattr(found, "residents"):
            yield from found.residents(doors)
        else:
            yield from map(Resident, _actors_of(found))


def dedicated_kinds(modules: Sequence[str] = ()) -> frozenset[str]:
    """The names of the kinds whose actors have a process each: what a caller must know of kinds."""
    found = (_import(module) for module in modules)
    return frozenset(
        actor.kind.name for module in found for actor in _actors_of(module) if actor.kind.dedicated
    )


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Misconfigured(
            f"The kinds of {module!r} can't be imported: {error}.", field="FLOTILLA_KINDS"
        ) from error


def _own_modules() -> list[str]:
    package = importlib.import_module(RESIDENTS)
    return [f"{RESIDENTS}.{info.name}" for info in pkgutil.iter_modules(package.__path__)]


def _actors_of(module: Any) -> Iterator[type[Actor]]:
    for value in vars(module).values():
        mine = isinstance(value, type) and issubclass(value, Actor) and value.__module__ == module.__name__
        if mine and hasattr(value, "kind"):
            yield value
