"""What goes wrong in a world, and when: from its seed, a few faults, each mended after a while."""

from __future__ import annotations

import asyncio

from simulation.echo import Echo
from simulation.harm import Doing, Harm, at_a_call, named
from simulation.model_harm import MODEL_KINDS
from simulation.modelled import CONTROLLER
from simulation.nodes import HostNode
from simulation.stores import Mood
from simulation.world import World

FAULTS_S = 2.5  # faults begin within so much of the start
MODEL_FAULTS_S = 20.0  # where there are models, whose swaps take longer
DRAIN_MOST_S = 12.0


# -- processes


async def kill(harm: Harm) -> None:
    name = harm.anybody()
    harm.note(f"kill {name}")
    harm.world.kill(name)
    await harm.for_a_while()
    harm.world.start(name)


async def pause(harm: Harm) -> None:
    name = harm.anybody()
    process = harm.world.processes.get(name)
    if process is None:
        return
    harm.note(f"pause {name}")
    harm.world.loop.pause(process)
    await harm.for_a_while()
    harm.note(f"resume {name}")
    harm.world.loop.resume(process)


async def die_at_a_call(harm: Harm) -> None:
    """Right before or right after a store has done what a host asked of it."""
    await at_a_call(harm, "kill", harm.world.kill, harm.world.start)


async def pause_at_a_call(harm: Harm) -> None:
    """Long enough, at times, to be taken for dead."""
    loop, processes = harm.world.loop, harm.world.processes

    def stop(name: str) -> None:
        loop.pause(processes[name])

    def go_on(name: str) -> None:
        if process := processes.get(name):
            loop.resume(process)

    await at_a_call(harm, "pause", stop, go_on)


async def drain(harm: Harm) -> None:
    """A host is emptied and ends; later it is there again."""
    name = harm.host()
    node = harm.world.nodes.get(name)
    if not isinstance(node, HostNode) or len(harm.world.host_names) == 1:
        return
    harm.note(f"drain {name}")
    node.host.draining = True
    until = harm.world.loop.time() + DRAIN_MOST_S
    while node.host.active and harm.world.loop.time() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.25)
    harm.world.stop(name)
    await harm.for_a_while()
    harm.world.start(name)


async def add(harm: Harm) -> None:
    name = f"host-{len(harm.world.host_names)}"
    harm.note(f"add {name}")
    harm.world.host_names.append(name)
    harm.world.start(name)


# -- the network


async def partition(harm: Harm) -> None:
    one = harm.anybody()
    other = harm.chance.choice([harm.store(), harm.store(), *harm.world.host_names, *harm.world.ports])
    await harm.cut(one, other)


async def break_connections(harm: Harm) -> None:
    for _ in range(harm.chance.randint(1, 6)):
        harm.note("break a connection")
        harm.world.network.break_one(harm.chance.randrange(1000))
        await asyncio.sleep(0.3 * harm.chance.random())


async def say_again(harm: Harm) -> None:
    """Copies of requests arrive later, on another connection, as from a proxy that tries again."""
    harm.note("requests are said again")
    echo = Echo(harm.world, harm.chance)
    harm.world.network.taps.append(echo.hear)
    await harm.for_a_while()
    harm.world.network.taps.remove(echo.hear)


# -- stores and clocks


async def trouble(harm: Harm) -> None:
    """A store is slow, or refuses, or loses answers, or is down."""
    chance, name = harm.chance, harm.store()
    mood = chance.choice(
        (
            Mood(latency_s=(0.01, 0.2)),
            Mood(refuses=0.3),
            Mood(forgets=0.3),
            Mood(refuses=0.1, forgets=0.1, latency_s=(0.001, 0.05)),
            Mood(down=True),
        )
    )
    harm.note(f"{name}: {mood}")
    store = named(harm.world, name)
    store.mood = mood
    await harm.for_a_while()
    harm.note(f"{name} is well again")
    store.mood = Mood()


async def jump(harm: Harm) -> None:
    # A reminder that is set by a clock that is an hour ahead is due in an hour.
    far = 5.0 if harm.world.rings or harm.world.modelled else 3600.0
    name, seconds = harm.anybody(), harm.chance.choice((-far, -5.0, 5.0, far))
    harm.note(f"the wall clock of {name} jumps by {seconds} s")
    if process := harm.world.processes.get(name):
        process.wall_shift_s += seconds


# -- placement


async def pin(harm: Harm) -> None:
    actor, host = harm.chance.choice(harm.world.actors), harm.host()
    harm.note(f"pin {actor} to {host}")
    pins = harm.world.stores.pins.inner
    await pins.pin(actor, host)
    await harm.for_a_while()
    await pins.unpin(actor)


KINDS: tuple[Doing, ...] = (
    kill,
    kill,
    pause,
    pause,
    die_at_a_call,
    die_at_a_call,
    pause_at_a_call,
    pause_at_a_call,
    partition,
    partition,
    trouble,
    trouble,
    break_connections,
    say_again,
    drain,
    add,
    jump,
    pin,
)


async def harm(world: World) -> None:
    """Returns when all is mended."""
    harm = Harm(world)
    within_s, faults = FAULTS_S, [harm.chance.choice(KINDS) for _ in range(harm.chance.choice(MANY))]
    if world.modelled:
        within_s = MODEL_FAULTS_S
        faults += [harm.chance.choice(MODEL_KINDS) for _ in range(harm.chance.choice(MANY))]
    await asyncio.gather(*(_one(harm, fault, within_s) for fault in faults))
    mend(world)


async def _one(harm: Harm, fault: Doing, within_s: float) -> None:
    await asyncio.sleep(within_s * harm.chance.random())
    await fault(harm)


MANY = (0, 1, 1, 2, 2, 3, 4)


def mend(world: World) -> None:
    """Whatever two faults have left behind together."""
    world.network.heal_all()
    for store in world.stores.all():
        store.mood = Mood()
        store.traps.clear()
    controller = [CONTROLLER] if world.modelled else []
    for process in world.processes.values():
        world.loop.resume(process)
    for name in (*world.host_names, *world.ports, *controller):
        if process := world.processes.get(name):
            process.wall_shift_s = 0.0
        world.start(name)
