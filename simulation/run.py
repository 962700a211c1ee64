"""One schedule from its seed, and what came of it."""

from __future__ import annotations

from contextlib import nullcontext

import msgspec

from flotilla.core.policy import intents
from simulation import history, schedule
from simulation.model_history import check_models
from simulation.observations import Change, Entry, Violation
from simulation.planted import BUGS
from simulation.sealed import sealed
from simulation.versions import BASES, TEXTS
from simulation.world import World

CLOSINGS = (intents.NOT_SURE, intents.DONT_KNOW.text)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`virtual_s` is how long it took in the world; `trace` is empty unless it was asked for."""

    seed: int
    violations: tuple[str, ...]
    rules: tuple[str, ...]
    steps: int
    virtual_s: float
    trace: tuple[str, ...] = ()


def run(seed: int, *, tracing: bool = False, planted: str = "", models: bool | None = None) -> Outcome:
    """Plays the schedule of `seed`, with the bug `planted` (simulation.planted) if one is named; see `World`
    for `models`. The same seed gives the same trace, to the byte."""
    models = BUGS[planted].models if planted and models is None else models
    world = World(seed, tracing=tracing, models=models)

    async def main() -> tuple[dict[str, list[Entry]], list[Change]]:
        await world.run(schedule.harm)
        return await world.record(), await world.modelled.changes() if world.modelled else []

    planting = BUGS[planted].plant(world) if planted else nullcontext()
    with sealed(world.loop, seed), planting:
        record, changes = world.loop.run(main())
    found = [*history.check(world.observations, record), *world.broken, *_escaped(world)]
    if world.modelled:
        found += check_models(world.observations, changes, record, TEXTS, CLOSINGS, bases=BASES)
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
