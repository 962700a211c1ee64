"""What goes wrong with models: replicas and their controller die, hang, drain; boards are lost."""

from __future__ import annotations

import asyncio
from typing import Any

from simulation.harm import Doing, Harm, at_a_call
from simulation.model_history import BOARDS_LOST
from simulation.modelled import CONTROLLER, Modelled
from simulation.replicas import ReplicaNode
from simulation.stores import Mood

LOOK_S = 0.2
SEEK_S = 6.0
RELOAD_LOOK_S, RELOAD_SEEK_S = 0.05, 25.0
TURNING_POINTS = frozenset({"swap.went", "swap.turned", "swap.ended"})


async def _replica(harm: Harm) -> str:
    """One that runs, if one does before long; else ""."""
    until = harm.world.loop.time() + SEEK_S
    while harm.world.loop.time() < until:
        names = sorted(name for name in harm.world.processes if "@" in name)
        if names:
            return harm.chance.choice(names)
        await asyncio.sleep(LOOK_S)
    return ""


def _modelled(harm: Harm) -> Modelled:
    assert harm.world.modelled is not None
    return harm.world.modelled


async def kill_replicas(harm: Harm) -> None:
    """Some, one after the other."""
    for _ in range(harm.chance.randint(1, 3)):
        if name := await _replica(harm):
            harm.note(f"kill {name}")
            harm.world.kill(name)
            _modelled(harm).crew.again(name)
        await asyncio.sleep(harm.chance.random())


async def pause_a_replica(harm: Harm) -> None:
    name = await _replica(harm)
    if process := harm.world.processes.get(name):
        harm.note(f"pause {name}")
        harm.world.loop.pause(process)
        await harm.for_a_while()
        harm.note(f"resume {name}")
        harm.world.loop.resume(process)


async def ail(harm: Harm) -> None:
    """A replica is slow, or breaks off."""
    name = await _replica(harm)
    node = harm.world.nodes.get(name)
    if isinstance(node, ReplicaNode) and node.up:
        ill = harm.chance.choice(({"slow_ms": 1000.0}, {"fail_share": 0.5}, {"fail_share": 1.0}))
        harm.note(f"{name} is ill: {ill}")
        node.suffer(**ill)
        await harm.for_a_while()
        node.suffer(slow_ms=0.0, fail_share=0.0)


async def drain_a_replica(harm: Harm) -> None:
    """Somebody tells it to leave."""
    name = await _replica(harm)
    node = harm.world.nodes.get(name)
    if isinstance(node, ReplicaNode) and node.up:
        harm.note(f"drain {name}")
        node.replica.drain()


async def kill_at_a_reload(harm: Harm) -> None:
    """A replica whose weights are being swapped, or any other, or the controller."""
    reloading = await _sought(harm)
    if not reloading:
        return
    await asyncio.sleep(harm.chance.choice((0.0, 0.2, 1.0)))
    if harm.chance.random() < 0.3:
        await kill_the_controller(harm)
    elif name := harm.chance.choice([*reloading, await _replica(harm)]):
        harm.note(f"kill {name} at a reload")
        harm.world.kill(name)
        _modelled(harm).crew.again(name)


async def _sought(harm: Harm) -> list[str]:
    """Replicas that are being reloaded, if some are before long."""
    until = harm.world.loop.time() + RELOAD_SEEK_S
    while not (reloading := _reloading(harm)) and harm.world.loop.time() < until:  # noqa: ASYNC110
        await asyncio.sleep(RELOAD_LOOK_S)
    return reloading


def _reloading(harm: Harm) -> list[str]:
    nodes = sorted(harm.world.nodes.items())
    return [name for name, node in nodes if isinstance(node, ReplicaNode) and node.reloading]


async def kill_the_controller(harm: Harm) -> None:
    harm.note("kill the controller")
    harm.world.kill(CONTROLLER)
    await harm.for_a_while()
    harm.world.start(CONTROLLER)


async def kill_at_a_turning_point(harm: Harm) -> None:
    """The host that leads a swap, right before or after it has recorded where that goes."""

    def turns(args: tuple[Any, ...]) -> bool:
        return any(entry.type in TURNING_POINTS for entry in args[0].entries)

    world, call = harm.world, ("journal", "append", 6)
    await at_a_call(harm, "kill", world.kill, world.start, call, fits=turns, patience_s=30.0)


async def cut_from_replica(harm: Harm) -> None:
    one = harm.chance.choice([*harm.world.host_names, CONTROLLER])
    name = await _replica(harm)
    if name:
        await harm.cut(one, name)


async def cut_from_boards(harm: Harm) -> None:
    await harm.cut(harm.chance.choice([*harm.world.host_names, CONTROLLER]), "boards")


async def boards_down(harm: Harm) -> None:
    """Valkey is down, slow, or forgets what it was told; or it is started again, empty."""
    chance, store = harm.chance, harm.world.stores.boards
    assert store is not None
    mood = chance.choice((Mood(down=True), Mood(forgets=0.3), Mood(refuses=0.4), Mood(latency_s=(0.01, 0.5))))
    harm.note(f"boards: {mood}")
    store.mood = mood
    await harm.for_a_while()
    if chance.random() < 0.4:
        harm.note(BOARDS_LOST)
        _modelled(harm).boards.forget()
    harm.note("boards are well again")
    store.mood = Mood()


async def crew_in_trouble(harm: Harm) -> None:
    store = harm.world.stores.crew
    assert store is not None
    store.mood = harm.chance.choice((Mood(down=True), Mood(forgets=0.5), Mood(refuses=0.5)))
    harm.note(f"crew: {store.mood}")
    await harm.for_a_while()
    store.mood = Mood()


MODEL_KINDS: tuple[Doing, ...] = (
    kill_replicas,
    kill_replicas,
    pause_a_replica,
    ail,
    ail,
    drain_a_replica,
    kill_the_controller,
    kill_at_a_reload,
    kill_at_a_reload,
    kill_at_a_turning_point,
    kill_at_a_turning_point,
    cut_from_replica,
    cut_from_boards,
    boards_down,
    boards_down,
    crew_in_trouble,
)
