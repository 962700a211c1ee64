"""A reply that is broken off has cost what was made of it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from actors.residents.session import SessionPerformer
from actors.residents.talk import Talk
from actors.stopwatch import Stopwatch
from actors.work import Work
from flotilla.core.actor import Fact
from flotilla.core.clock import SystemClock
from flotilla.core.errors import Unavailable
from flotilla.core.facts import ReplyFailed, ReplyInterrupted
from flotilla.core.generation import Piece, Usage
from flotilla.core.ids import ActorId
from flotilla.core.ledger import Recorded
from flotilla.stores.memory import MemoryHotLog

TURN = "t_1"
NOBODY: Any = None
"""Nothing is searched or generated here."""


class World:
    def __init__(self) -> None:
        self.charged: list[tuple[str, str, dict[str, Any]]] = []
        work = Work(knowledge=NOBODY, model=NOBODY, clock=SystemClock(), log=structlog.get_logger())
        bills: Any = SimpleNamespace(charge=self._charge)
        self.performer = SessionPerformer(
            work, MemoryHotLog(), lambda: True, lambda work: work.close(), bills
        )
        talk = Talk()
        self.watch = talk.watches[TURN] = Stopwatch(0.0)
        self.at: Any = SimpleNamespace(id=ActorId("demo", "session", "s_1"), notes=talk)

    def _charge(self, tenant: str, key: str, **what: Any) -> None:
        self.charged.append((tenant, key, what))

    def record(self, fact: Fact) -> None:
        self.performer.recorded(self.at, Recorded(seq=4, at=datetime.now(UTC), fact=fact))


FAILED = ReplyFailed(turn=TURN, problem=Unavailable("Gone.").problem())


@pytest.mark.parametrize("end", [ReplyInterrupted(turn=TURN, text="The gold"), FAILED])
def test_it_is_charged_for_the_tokens_that_were_made(end: Fact) -> None:
    world = World()
    world.watch.heard(Piece(text="The", tokens=1), "m@1")
    world.watch.heard(Piece(text=" gold card", tokens=2, model="m@2"), "m@1")
    world.record(end)
    what = {"source": "session", "model": "m@2", "usage": Usage(completion_tokens=3)}
    assert world.charged == [("demo", TURN, what)]


def test_nothing_is_charged_before_a_word_was_made() -> None:
    world = World()
    assert world.watch.made == 0
    world.record(ReplyInterrupted(turn=TURN, text=""))
    assert world.charged == []
