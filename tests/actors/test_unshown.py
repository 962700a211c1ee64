"""A version that is about to begin a reply instead of the chosen one: not where another host shows it already."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from actors.residents.session import SessionPerformer
from actors.work import Work
from flotilla.core import signals
from flotilla.core.clock import SystemClock
from flotilla.core.errors import Conflict
from flotilla.core.ids import ActorId
from flotilla.stores.memory import MemoryHotLog

AT = ActorId("demo", "session", "s_1")
STEP = signals.Unshown(turn="t_1")


class Activated:
    """What the step reads of an activation."""

    id = AT


def performer(hot_log: MemoryHotLog) -> Any:
    work = Work(
        knowledge=None,  # type: ignore[arg-type]
        model=None,  # type: ignore[arg-type]
        clock=SystemClock(),
        log=structlog.get_logger(),
    )
    return SessionPerformer(work, hot_log, lambda: True, lambda _: None)


async def test_who_shows_it_goes_on_with_it() -> None:
    hot_log = MemoryHotLog()
    await hot_log.append(AT, "t_1", 0, "The card")
    with pytest.raises(Conflict):
        await performer(hot_log).step(Activated(), STEP)


async def test_nobody_takes_up_again_what_was_closed() -> None:
    hot_log = MemoryHotLog()
    await hot_log.seal(AT, "t_1")
    with pytest.raises(Conflict):
        await performer(hot_log).step(Activated(), STEP)


async def test_where_nothing_is_shown_it_may_begin() -> None:
    hot_log = MemoryHotLog()
    await hot_log.append(AT, "t_0", 0, "Another turn's.")
    await performer(hot_log).step(Activated(), STEP)
