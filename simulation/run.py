"""One schedule from its seed, and what came of it."""

from __future__ import annotations

from contextlib import nullcontext

import msgspec

from simulation import history, schedule
from simulation.observations import Entry, Violation
from simulation.planted import BUGS
from simulation.sealed import sealed
from simulation.world import World


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`virtual_s` is how long it took in the world; `trace` is empty unless it was asked for."""

    seed: int
    violations: tuple[str, ...]
    rules: tuple[str, ...]
    steps: int
    virtual_s: float
    trace: tuple[str, ...] = ()


def run(seed: int, *, tracing: bool = False, planted: str = "") -> Outcome:
    """Plays the schedule of `seed`, with the bug `planted` (simulation.planted) if one is named. The same
    seed gives the same trace, to the byte."""
    world = World(seed, tracing=tracing)

    async def main() -> dict[str, list[Entry]]:
        await world.run(schedule.harm)
        return await world.record()

    planting = BUGS[planted].plant(world) if planted else nullcontext()
    with sealed(world.loop, seed), planting:
        record = world.loop.run(main())
    found = [*history.check(world.observations, record), *world.broken, *_escaped(world)]
    return Outcome(
        seed=seed,
        violations=tuple(map(str, found)),
        rules=tuple(sorted({violation.rule for violation in found})),
        steps=world.loop.steps,
        virtual_s=world.loop.time(),
        trace=tuple(world.trace or ()),
    )


def _escaped(world: World) -> list[Violation]:
    """What broke in a callback or a task, and nobody heard of."""
    return [
        Violation(rule="broke", session="", at=0.0, what=f"{context['message']} {context.get('exception')!r}")
        for context in world.loop.errors
    ]
