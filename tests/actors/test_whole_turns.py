"""A host sheds by what a whole turn waits, though no queue of its own stands."""

from __future__ import annotations

import pytest

from actors.pressure import Pressure
from flotilla.core.ids import ActorId

TARGET_S = 0.25
TICK_S = 0.1


class Clock:
    at = 100.0

    def monotonic(self) -> float:
        return self.at


def shown_after(pressure: Pressure, clock: Clock, seconds: float, *, shown: bool = True) -> None:
    """Turns of which each has waited so long, in two intervals: what stands is the least of both."""
    for tick in range(2):
        for n in range(50):
            pressure.enter(ActorId("demo", "session", f"s-{tick}-{n}"))
        clock.at += seconds
        for n in range(50):
            pressure.through(ActorId("demo", "session", f"s-{tick}-{n}"), shown=shown)
        pressure.shedding.tick(TICK_S)


@pytest.mark.parametrize(
    ("seconds", "engine_s", "shown", "falls"),
    [(0.5, 0.0, True, True), (0.2, 0.0, True, False), (0.5, 0.4, True, False), (0.5, 0.0, False, False)],
    ids=["too long", "not too long", "its engine takes long", "nothing to show"],
)
def test_the_bound_falls_with_what_turns_wait(
    seconds: float, engine_s: float, shown: bool, falls: bool
) -> None:
    clock = Clock()
    pressure = Pressure(clock, TARGET_S)  # type: ignore[arg-type]  # it reads nothing but the time
    before = pressure.shedding.limit
    for _ in range(100):
        pressure.engine_took(engine_s)
    shown_after(pressure, clock, seconds, shown=shown)
    assert (pressure.shedding.limit < before) is falls
    assert (pressure.shedding.reason == "turn") is falls
    assert pressure.shedding.waiting == 0
