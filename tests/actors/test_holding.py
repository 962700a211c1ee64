"""A task goes on with the version that it began with, so its replicas must not be taken away before its end."""

from __future__ import annotations

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from actors.residents.agent import AgentPerformer
from actors.serving.counting import Counts
from actors.serving.holding import CLIENT_HELD_MAX_S, HELD_MAX_S, ClientLoops, Holding
from actors.serving.swap_loading import EMPTY_MAX_S, empty
from flotilla.core.clock import SystemClock
from flotilla.core.flow import Agent, Do, agent_kind
from flotilla.core.flow_facts import (
    AgentFact,
    StepBegun,
    StepDone,
    TaskAccepted,
    TaskCancelled,
    TaskDone,
    TaskResumed,
    TaskStopping,
)
from flotilla.core.ids import ActorId
from flotilla.core.ledger import Recorded
from flotilla.core.tools import Toolbox
from flotilla.core.wants import Done, Plan, Reply, Text
from flotilla.stores.memory import MemoryLetters
from flotilla.stores.memory_boards import MemoryTallyBoard

LOG = structlog.get_logger("tests")
AT = ActorId("demo", "clerk", "c-1")
VERSION = "m@1"
BEGUN: tuple[AgentFact, ...] = (
    TaskAccepted(do=Do(task="t-1", question="?")),
    StepBegun(task="t-1", n=1, what="Generate", digest="d", share=Do(task="t", question="?").budget),
    StepDone(task="t-1", n=1, outcome=Text("Yes.", model=VERSION)),
)


class Clerk(Agent):
    kind = agent_kind("clerk")

    def answer(self, task: Do) -> Plan:
        yield from ()
        return Reply(text="")


class Hands(SystemClock):
    at = 0.0

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds
        await asyncio.sleep(0)


class Desk:
    def __init__(self) -> None:
        self.clock, self.counts = Hands(), Counts()
        self.holding = Holding(self.clock)
        self.performer = AgentPerformer(
            knowledge=None,  # type: ignore[arg-type]
            model=self.holding,  # type: ignore[arg-type]
            toolbox=Toolbox(()),
            letters=MemoryLetters(),
            clock=self.clock,
            log=LOG,
            random=Random(1),
        )
        self.at = self.activation()

    def activation(self) -> Any:
        """A class of its own: a namespace has no hash."""
        return type("At", (), {"id": AT, "lost": False, "actor": Clerk(id=AT)})()

    def record(self, *facts: AgentFact) -> None:
        for fact in facts:
            self.at.actor.fold(fact)
            seq, at = self.at.actor.seq, self.clock.now()
            self.performer.recorded(self.at, Recorded(seq=seq, at=at, fact=fact))

    @property
    def held(self) -> int:
        self.counts.held(self.holding.counted())
        return self.counts.of(VERSION).held


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_task_holds_its_version_until_its_end(desk: Desk) -> None:
    desk.record(*BEGUN[:2])
    assert desk.held == 0
    desk.record(BEGUN[2])
    assert desk.held == 1
    desk.record(TaskDone(task="t-1", done=Done(text="Yes.")))
    assert desk.held == 0


def test_one_that_is_cancelled_lets_go_and_one_that_may_be_taken_up_again_holds(desk: Desk) -> None:
    desk.record(*BEGUN, TaskStopping(task="t-1"))
    assert desk.held == 1
    desk.record(TaskCancelled(task="t-1"))
    assert desk.held == 0
    desk.record(TaskResumed(task="t-1"))
    assert desk.held == 1


def test_who_wakes_from_the_record_holds_what_the_record_says(desk: Desk) -> None:
    for fact in BEGUN:
        desk.at.actor.fold(fact)
    desk.performer.prepare(desk.at, ())
    assert desk.held == 1


def test_an_activation_that_is_lost_holds_nothing_though_it_is_still_referred_to(desk: Desk) -> None:
    desk.record(*BEGUN)
    desk.at.lost = True
    assert desk.held == 0
    assert desk.holding.of(desk.at) == frozenset()


def test_one_whose_record_does_not_grow_lets_go_after_a_while(desk: Desk) -> None:
    desk.record(*BEGUN)
    desk.clock.at = HELD_MAX_S - 1
    assert desk.held == 1
    desk.record(StepBegun(task="t-1", n=2, what="Pause", digest="d", share=BEGUN[1].share))  # type: ignore[union-attr]
    desk.clock.at = HELD_MAX_S + 1
    assert desk.held == 1
    desk.clock.at = 2 * HELD_MAX_S
    assert desk.held == 0
    assert HELD_MAX_S < EMPTY_MAX_S


def test_the_clients_that_a_version_gave_calls_hold_it_together_and_for_a_minute(desk: Desk) -> None:
    for at in (0.0, CLIENT_HELD_MAX_S - 1):
        desk.clock.at = at
        desk.holding.hold(ClientLoops(VERSION), {VERSION}, most_s=CLIENT_HELD_MAX_S)
    desk.clock.at = 2 * CLIENT_HELD_MAX_S - 2
    assert desk.held == 1
    desk.clock.at = 2 * CLIENT_HELD_MAX_S
    assert desk.held == 0


def test_a_version_that_is_held_is_not_forgotten(desk: Desk) -> None:
    desk.record(*BEGUN)
    assert desk.held == 1
    desk.counts.prune(())
    assert VERSION in desk.counts.tallies


@pytest.mark.timeout(20)
async def test_nothing_is_empty_while_a_task_goes_on_with_it(desk: Desk) -> None:
    board = MemoryTallyBoard(SystemClock())
    needs: Any = SimpleNamespace(clock=Hands(), tallies=board, log=LOG)
    desk.record(*BEGUN)
    assert desk.held == 1
    await board.post("host-0", desk.counts.tallies)
    waiting = asyncio.create_task(empty(needs, frozenset({VERSION})))
    while needs.clock.at < 60:
        await asyncio.sleep(0)
    assert not waiting.done()
    desk.record(TaskDone(task="t-1", done=Done(text="Yes.")))
    assert desk.held == 0
    await board.post("host-0", desk.counts.tallies)
    await waiting
    assert needs.clock.at < EMPTY_MAX_S
