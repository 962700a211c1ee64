"""Doing harm to a world: what all faults have in common."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from simulation.observations import Fault
from simulation.stores import Store, Trap
from simulation.world import World

DOWN_S = (0.05, 0.5, 2.0, 4.5, 7.0)


class Harm:
    """Does harm to a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = random.Random(f"faults {world.seed}")

    def note(self, what: str) -> None:
        self.world.observe(Fault(at=self.world.loop.time(), what=what))

    async def for_a_while(self) -> None:
        await asyncio.sleep(self.chance.choice(DOWN_S) * (0.5 + self.chance.random()))

    async def cut(self, one: str, other: str) -> None:
        self.note(f"cut {one} from {other}")
        self.world.network.cut(one, other)
        await self.for_a_while()
        self.note(f"heal {one} and {other}")
        self.world.network.heal(one, other)

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


Doing = Callable[[Harm], Awaitable[None]]


def named(world: World, name: str) -> Store:
    return getattr(world.stores, name)


async def at_a_call(
    harm: Harm,
    what: str,
    harmful: Callable[[str], None],
    mend: Callable[[str], None],
    call: tuple[str, str, int] | None = None,
    *,
    fits: Callable[[tuple[Any, ...]], bool] = lambda _: True,
    patience_s: float = 10.0,
) -> None:
    """Whoever calls a store, by chance right before or after the store has done it. `fits` says of the call's
    arguments whether it counts."""
    sprung: asyncio.Future[str] = harm.world.loop.create_future()
    store, method, most = call or harm.call()

    def spring(name: str) -> None:
        if name in harm.world.processes and not sprung.done():
            harm.note(f"{what} {name} at a call of the {store}")
            harmful(name)
            sprung.set_result(name)

    trap = Trap(method, harm.chance.randint(1, most), harm.chance.random() < 0.5, spring, fits)
    named(harm.world, store).traps.append(trap)
    try:
        name = await asyncio.wait_for(sprung, patience_s)
    except TimeoutError:
        return
    await harm.for_a_while()
    mend(name)
