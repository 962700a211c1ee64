"""A version that is about to begin a reply instead of the chosen one: not where another host shows it already."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from actors.residents.session import SessionPerformer
from actors.work import Work
from flotilla.core import signals
from flotilla.core.clock import SystemClock
from flotilla.core.errors import Conflict, Unavailable
from flotilla.core.ids import ActorId
from flotilla.stores.memory import MemoryHotLog

AT = ActorId("demo", "session", "s_1")
NOBODY: Any = None
"""Nothing is searched or generated here."""
STEP = signals.Unshown(turn="t_1", model="m@2")


class Activated:
    """What the steps read of an activation."""

    id = AT

    def __init__(self) -> None:
        self.notes: Any = None
        self.actor = SimpleNamespace(turn=SimpleNamespace(id="t_1"))
        self.published: list[bytes] = []

    def begins(self) -> None: ...

    def publish(self, frame: bytes) -> None:
        self.published.append(frame)


def say(text: str) -> signals.Say:
    return signals.Say(turn="t_1", seq=1, offset=0, text=text)


def performer(hot_log: MemoryHotLog) -> Any:
    work = Work(knowledge=NOBODY, model=NOBODY, clock=SystemClock(), log=structlog.get_logger())
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


async def test_whoever_did_not_know_of_it_shows_nothing_from_then_on() -> None:
    """A host that the session has left, whose replica answers after all."""
    hot_log = MemoryHotLog()
    left, here = Activated(), Activated()
    await performer(hot_log).step(here, STEP)
    with pytest.raises(Conflict):
        await performer(hot_log).step(left, say("The old"))
    await performer(hot_log).step(here, say("The new"))
    assert not left.published and len(here.published) == 1


async def test_the_next_host_hears_who_has_begun_and_what_was_shown() -> None:
    hot_log = MemoryHotLog()
    here = Activated()
    await performer(hot_log).step(here, STEP)
    woken = await performer(hot_log).woken(Activated())
    assert (woken.said, woken.model) == ("", "m@2")
    for piece in ("The gold", " card"):
        await performer(hot_log).step(here, say(piece))
    next = Activated()
    woken = await performer(hot_log).woken(next)
    assert (woken.said, woken.model) == ("The gold card", "m@2")
    await performer(hot_log).step(next, say(" costs"))
    assert (await performer(hot_log).woken(Activated())).said == "The gold card costs"


async def test_the_last_of_two_that_begin_counts() -> None:
    hot_log = MemoryHotLog()
    here = Activated()
    for model in ("m@2", "m@3"):
        await performer(hot_log).step(here, signals.Unshown(turn="t_1", model=model))
    await performer(hot_log).step(here, signals.Seal(turn="t_1"))
    woken = await performer(hot_log).woken(Activated())
    assert (woken.said, woken.model, woken.sealed) == ("", "m@3", True)


class Down(MemoryHotLog):
    """For so many times; it may do what it is asked to all the same, and not say so."""

    def __init__(self, times: int, *, silently: bool = False) -> None:
        super().__init__()
        self.times = times
        self.silently = silently

    async def append(self, actor: ActorId, turn: str, said: int, text: str) -> None:
        self.times -= 1
        if self.times < 0 or self.silently:
            await super().append(actor, turn, said, text)
        if self.times >= 0:
            raise Unavailable("Down.")


async def test_where_the_log_is_down_the_reply_goes_on_and_claims_with_its_first_words() -> None:
    hot_log, here = Down(2), Activated()
    await performer(hot_log).step(here, STEP)
    assert here.notes.claims == ""
    for piece in ("The", " card"):  # the log is back with the second
        await performer(hot_log).step(here, say(piece))
    woken = await performer(hot_log).woken(Activated())
    assert (woken.said, woken.model) == ("The card", "m@2")
    await performer(hot_log).step(here, say(" costs"))
    assert (await performer(hot_log).woken(Activated())).said == "The card costs"


async def test_a_claim_of_which_nobody_was_told_counts() -> None:
    hot_log, here = Down(1, silently=True), Activated()
    await performer(hot_log).step(here, STEP)
    with pytest.raises(Conflict):  # so that it looks again
        await performer(hot_log).step(here, say("The"))
    woken = await performer(hot_log).woken(here)
    assert (woken.said, woken.model, here.notes.owed) == ("", "m@2", "")
    await performer(hot_log).step(here, say("The"))
