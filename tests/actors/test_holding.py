"""A task goes on with the version that it began with, so its replicas must not be taken away before its end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from actors.residents.agent import AgentPerformer
from actors.serving.counting import Counts
from actors.serving.swap_loading import empty
from flotilla.core.calls import Call
from flotilla.core.clock import SystemClock
from flotilla.core.flow_facts import Perform, TaskDone
from flotilla.core.generation import ChatMessage, Finished, Generated, Piece, Prompt, Usage
from flotilla.core.ids import ActorId
from flotilla.core.ledger import Recorded
from flotilla.core.tools import Toolbox
from flotilla.core.wants import Done, Generate
from flotilla.stores.memory import MemoryLetters
from flotilla.stores.memory_boards import MemoryTallyBoard

LOG = structlog.get_logger("tests")
AT = ActorId("demo", "clerk", "c-1")
VERSION = "m@1"


class Door:
    """Says who made the reply, and counts who goes on with a version."""

    name = VERSION

    def __init__(self) -> None:
        self.counts = Counts()

    def hold(self, version: str) -> Any:
        return self.counts.hold(version)

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        yield Piece(text="Yes.")
        yield Finished(reason="stop", usage=Usage(), first_token_ms=1.0, total_ms=1.0, model=VERSION)


class Desk:
    def __init__(self) -> None:
        self.door = Door()
        self.performer = AgentPerformer(
            knowledge=None,  # type: ignore[arg-type]
            model=self.door,  # type: ignore[arg-type]
            toolbox=Toolbox(()),
            letters=MemoryLetters(),
            clock=SystemClock(),
            log=LOG,
            random=Random(1),
        )
        self.at: Any = SimpleNamespace(id=AT, notes=None)

    @property
    def held(self) -> int:
        return self.door.counts.of(VERSION).held

    async def generate(self, n: int, *, pinned: bool = False) -> None:
        prompt = Prompt(messages=(ChatMessage(role="user", text="?"),), model=VERSION, pinned=pinned)
        effect = Perform(step=f"t-1.{n}", want=Generate(prompt))
        async for _ in self.performer.work(self.at, effect, Call()):
            pass

    def end(self) -> None:
        fact = TaskDone(task="t-1", done=Done(text="Yes."))
        self.performer.recorded(self.at, Recorded(seq=9, at=SystemClock().now(), fact=fact))


async def test_a_task_holds_its_version_once_and_until_its_end() -> None:
    desk = Desk()
    await desk.generate(1)
    await desk.generate(3, pinned=True)
    assert desk.held == 1
    desk.end()
    assert desk.held == 0
    desk.end()
    assert desk.held == 0


async def test_who_forgets_the_activation_lets_go() -> None:
    desk = Desk()
    await desk.generate(1)
    assert desk.held == 1
    desk.at = None
    gc.collect()
    assert desk.held == 0


@pytest.mark.timeout(20)
async def test_nothing_is_empty_while_a_task_goes_on_with_it() -> None:
    desk, board = Desk(), MemoryTallyBoard(SystemClock())
    await desk.generate(1)
    needs: Any = SimpleNamespace(clock=Quick(), tallies=board, log=LOG)
    await board.post("host-0", desk.door.counts.tallies)
    waiting = asyncio.create_task(empty(needs, frozenset({VERSION})))
    for _ in range(50):
        await asyncio.sleep(0)
    assert not waiting.done()
    desk.end()
    await board.post("host-0", desk.door.counts.tallies)
    await waiting


class Quick(SystemClock):
    """A second is over at once, and none has passed."""

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
