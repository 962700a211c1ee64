"""What a gateway refuses by itself: its own loop is late, or a host has refused what is like it."""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import Any

import pytest

from actors.fleet import Fleet
from flotilla.core import signals
from flotilla.core.clock import SystemClock
from flotilla.core.errors import Overloaded
from flotilla.core.ids import ActorId
from flotilla.core.policy.shedding import Terms
from serve.admission import Gate, GatedFleet
from serve.gate_metrics import GateMetrics

ACTOR = ActorId("demo", "session", "s")
POST = signals.Post(id="m-1", text="Hello?")


class Host:
    """Stands for a fleet of one host: it takes what it is told to take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self.asked = False, 0
        monkeypatch.setattr(Fleet, "ask", self.ask)

    async def ask(self, *_: Any, **__: Any) -> str:
        self.asked += 1
        if self.full:
            raise Overloaded("Full.", retry_after_s=1.0)
        return "done"


def gated(gate: Gate) -> GatedFleet:
    fleet = GatedFleet.__new__(GatedFleet)
    fleet.gate = gate
    fleet.home = lambda actor: "host-0"
    return fleet


async def asked(fleet: GatedFleet, times: int, message: Any = POST) -> list[Overloaded]:
    refusals: list[Overloaded] = []
    for _ in range(times):
        try:
            await fleet.ask(ACTOR, message)
        except Overloaded as error:
            refusals.append(error)
    return refusals


async def test_what_a_host_refuses_again_and_again_is_not_sent_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host, gate = Host(monkeypatch), Gate(SystemClock(), 0.25, chance=Random(1))
    fleet = gated(gate)
    assert not await asked(fleet, 100) and host.asked == 100
    host.full = True
    refusals = await asked(fleet, 1000)
    assert len(refusals) == 1000 and all(error.retry_after_s for error in refusals)
    assert host.asked - 100 < 500 and gate.counts["host"] == 1100 - host.asked


async def test_control_goes_to_the_host_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    host, gate = Host(monkeypatch), Gate(SystemClock(), 0.25, chance=Random(1))
    host.full = True
    await asked(gated(gate), 500)
    before = host.asked
    await asked(gated(gate), 20, signals.Interrupt())
    assert host.asked == before + 20


async def test_a_late_loop_refuses_new_turns_and_says_so() -> None:
    gate = Gate(SystemClock(), 0.1)
    feeling = asyncio.create_task(gate.run())
    waiting = [gate.wait("demo") for _ in range(50)]
    async with asyncio.timeout(10):
        while gate.shedding.limit > Terms().least:
            time.sleep(0.06)  # noqa: ASYNC251 - what holds up the loop
            await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="loop") as refusal:
        gate.check("demo", "host-0")
    assert refusal.value.retry_after_s
    for one in waiting:
        one.over()
        one.over()
    gate.check("demo", "host-0")
    with gate.turn("demo", "host-0"):
        assert gate.shedding.waiting == 1
    feeling.cancel()
    figures = {family.name: [s.value for s in family.samples] for family in GateMetrics(gate).collect()}
    assert figures["flotilla_gateway_shed"] == [1.0] and figures["flotilla_gateway_loop_seconds"][0] > 0.02
