"""What goes wrong in a world, and when: from its seed, a few faults, each mended after a while."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from simulation.echo import Echo
from simulation.nodes import HostNode
from simulation.observations import Fault
from simulation.stores import Mood, Store, Trap
from simulation.world import World

FAULTS_S = 2.5  # faults begin within so much of the start
DOWN_S = (0.05, 0.5, 2.0, 4.5, 7.0)
DRAIN_MOST_S = 12.0


class Harm:
    """Does harm to a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = random.Random(f"faults {world.seed}")

    def note(self, what: str) -> None:
        self.world.observe(Fault(at=self.world.loop.time(), what=what))

    async def for_a_while(self) -> None:
        await asyncio.sleep(self.chance.choice(DOWN_S) * (0.5 + self.chance.random()))

    def host(self) -> str:
        return self.chance.choice(self.world.host_names)

    def anybody(self) -> str:
        return self.chance.choice([*self.world.host_names, *self.world.ports])

    def store(self) -> str:
        return self.chance.choice(("journal", "journal", "hot_log", "directory", "pins", *self._bank()))

    def call(self) -> tuple[str, str, int]:
        """A store, a method of it, and how often it may be called before."""
        journal, hot_log = ("journal", "append", 12), ("hot_log", "append", 20)
        bank = [("bank", "pay", 3) for _ in self._bank()]
        return self.chance.choice([journal, journal, hot_log, *bank])

    def _bank(self) -> list[str]:
        """Twice, where somebody pays: it is seldom called."""
        return ["bank", "bank"] * any(actor.kind == "till" for actor in self.world.actors)


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
    await _at_a_call(harm, "kill", harm.world.kill, harm.world.start)


async def pause_at_a_call(harm: Harm) -> None:
    """Long enough, at times, to be taken for dead."""
    loop, processes = harm.world.loop, harm.world.processes

    def stop(name: str) -> None:
        loop.pause(processes[name])

    def go_on(name: str) -> None:
        if process := processes.get(name):
            loop.resume(process)

    await _at_a_call(harm, "pause", stop, go_on)


async def _at_a_call(
    harm: Harm, what: str, harmful: Callable[[str], None], mend: Callable[[str], None]
) -> None:
    sprung: asyncio.Future[str] = harm.world.loop.create_future()
    store, method, most = harm.call()

    def spring(name: str) -> None:
        if name in harm.world.processes and not sprung.done():
            harm.note(f"{what} {name} at a call of the {store}")
            harmful(name)
            sprung.set_result(name)

    trap = Trap(method, harm.chance.randint(1, most), harm.chance.random() < 0.5, spring)
    named(harm.world, store).traps.append(trap)
    try:
        name = await asyncio.wait_for(sprung, 10.0)
    except TimeoutError:
        return
    await harm.for_a_while()
    mend(name)


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
    harm.note(f"cut {one} from {other}")
    harm.world.network.cut(one, other)
    await harm.for_a_while()
    harm.note(f"heal {one} and {other}")
    harm.world.network.heal(one, other)


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
    far = 5.0 if harm.world.rings else 3600.0
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


Doing = Callable[[Harm], Awaitable[None]]
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


def named(world: World, name: str) -> Store:
    return getattr(world.stores, name)


async def harm(world: World) -> None:
    """Returns when all is mended."""
    harm = Harm(world)
    faults = [harm.chance.choice(KINDS) for _ in range(harm.chance.choice((0, 1, 1, 2, 2, 3, 4)))]
    await asyncio.gather(*(_one(harm, fault) for fault in faults))
    mend(world)


async def _one(harm: Harm, fault: Doing) -> None:
    await asyncio.sleep(FAULTS_S * harm.chance.random())
    await fault(harm)


def mend(world: World) -> None:
    """Whatever two faults have left behind together."""
    world.network.heal_all()
    for store in world.stores.all():
        store.mood = Mood()
        store.traps.clear()
    for name in (*world.host_names, *world.ports):
        if process := world.processes.get(name):
            world.loop.resume(process)
            process.wall_shift_s = 0.0
        world.start(name)
