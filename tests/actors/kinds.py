"""Kinds that do what the runtime must survive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import msgspec

from actors.performer import Activation, Performer
from actors.runtime import Resident
from examples.counter import Counter
from flotilla.core.actor import Actor, Fact, Kind, KindLimits
from flotilla.core.calls import Call
from flotilla.core.effects import (
    Abandoned,
    Answer,
    Answered,
    Ask,
    Due,
    Effects,
    Message,
    Part,
    Signal,
    Stop,
    Tell,
    Wait,
    Woken,
    Work,
)
from flotilla.core.errors import Refused, error_of
from flotilla.core.ids import ActorId
from flotilla.core.reminders import Every, Forget, Remind


class Noted(Fact, frozen=True, kw_only=True, tag="noted"):
    text: str


class Note(Message[int], frozen=True, kw_only=True, tag="note"):
    """Records `text`; answers with how many there are."""

    text: str = ""


class Burst(Message[None], frozen=True, kw_only=True, tag="burst"):
    """Breaks the actor: before anything is recorded or, `late`, between two records."""

    late: bool = False


class Read(Message[list[str]], frozen=True, tag="read"):
    idempotent = True


class Urgent(Message[list[str]], frozen=True, tag="urgent"):
    control = True


class Relay(Message[Any], frozen=True, kw_only=True, tag="relay"):
    """Asks each actor of `path` in turn to relay to the rest; the last one's name comes back."""

    path: tuple[str, ...]
    id: str


class Toil(Message[str], frozen=True, kw_only=True, tag="toil"):
    """Answered once the work is done, which is when somebody lets it."""

    id: str
    parts: int = 0


class Wake(Message[None], frozen=True, kw_only=True, tag="wake"):
    """Wants to be reminded, and notes it when it is."""

    name: str
    after_s: float = 0.0
    every_s: float = 0.0
    forget: bool = False


class Pass(Message[None], frozen=True, kw_only=True, tag="pass"):
    """Tells `to` to note it."""

    to: str
    text: str


class Reach(Message[Any], frozen=True, kw_only=True, tag="reach"):
    """Tells and asks `to`, whosever it is; answers with what came of it."""

    to: ActorId


class Toiling(Work, frozen=True, kw_only=True):
    id: str
    parts: int

    @property
    def key(self) -> str:
        return self.id


class Progress(Signal, frozen=True, kw_only=True, tag="progress"):
    id: str
    n: int
    last: bool


MESSAGES = Note | Burst | Read | Urgent | Relay | Toil | Wake | Pass | Reach


class Clerk(Actor):
    kind: ClassVar[Kind] = Kind(
        name="clerk",
        messages=MESSAGES,
        facts=Noted,
        limits=KindLimits(mailbox_messages_max=8, message_bytes_max=1000, snapshot_every=10),
    )

    notes: list[str] = []
    abandoned: list[str] = []

    def apply(self, fact: Noted) -> None:
        self.notes.append(fact.text)

    def on(self, signal: Any) -> Effects:
        match signal:
            case Note(text="refuse"):
                raise Refused("Not this one.", field="text", next="Send another.")
            case Note():
                return self.record(Noted(text=signal.text)), Answer(value=len(self.notes))
            case Burst(late=True):
                return self.record(Noted(text="before")), Toiling(id="", parts=-1)
            case Burst():
                self.notes.append("never recorded")
                raise ZeroDivisionError("a bug")
            case Read() | Urgent():
                return (Answer(value=list(self.notes)),)
            case Relay():
                return self._relay(signal)
            case Answered():
                if signal.problem is not None:
                    return (Answer(value=signal.problem.type, key=signal.key),)
                return (Answer(value=signal.value, key=signal.key),)
            case Toil():
                return Wait(key=signal.id), Toiling(id=signal.id, parts=signal.parts)
            case Progress(last=False):
                return (Part(value=signal.n, key=signal.id),)
            case Progress():
                return (Answer(value=f"{signal.id} done", key=signal.id),)
            case Abandoned():
                self.abandoned.append(signal.key)
                return (Stop(key=signal.key),)
            case Wake(forget=True):
                return (self.record(remind=(Forget(name=signal.name),)),)
            case Wake():
                every = Every(seconds=signal.every_s) if signal.every_s else None
                remind = Remind(name=signal.name, after_s=signal.after_s, repeat=every)
                return (self.record(remind=(remind,)),)
            case Due(name="deaf"):
                return ()
            case Due(name="bad"):
                raise ZeroDivisionError("a bug")
            case Due():
                return (self.record(Noted(text=f"{signal.name} at {signal.at.timestamp():g}")),)
            case Pass():
                to = ActorId(self.id.tenant, "clerk", signal.to)
                return (Tell(to=to, message=Note(text=signal.text)),)
            case Reach():
                note = Note(text="a stranger's")
                return (
                    Wait(key="reach"),
                    Tell(to=signal.to, message=note),
                    Ask(key="reach", to=signal.to, message=note),
                )
            case Woken():
                return ()
            case _:
                raise AssertionError(signal)

    def _relay(self, signal: Relay) -> Effects:
        if not signal.path:
            return (Answer(value=self.id.name),)
        first, *rest = signal.path
        onward = Relay(path=tuple(rest), id=signal.id)
        to = ActorId(self.id.tenant, "clerk", first)
        return Wait(key=signal.id), Ask(key=signal.id, to=to, message=onward, timeout_s=2.0)


class ClerkPerformer(Performer):
    """Its work goes on when `gate` is open, and says what became of it."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.calls: list[Call] = []

    async def work(self, at: Activation, effect: Any, call: Call) -> AsyncGenerator[Signal]:
        if effect.parts < 0:
            raise ZeroDivisionError("a bug in the work")
        self.started.append(effect.id)
        self.calls.append(call)
        try:
            for n in range(effect.parts):
                yield Progress(id=effect.id, n=n, last=False)
            await self.gate.wait()
        except BaseException:
            self.cancelled.append(effect.id)
            raise
        yield Progress(id=effect.id, n=0, last=True)


def residents() -> list[Resident]:
    return [Resident(Counter), Resident(Clerk, ClerkPerformer())]


__all__ = ["Clerk", "ClerkPerformer", "Counter", "error_of", "msgspec", "residents"]
