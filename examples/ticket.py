"""A ticket that must be answered in time: reminders that survive everything.

The reminder stands in the record, in one transaction with the fact that set it. Whichever host is alive
when it is due delivers it, and what the ticket then records takes it out in one transaction again: so it
escalates once, however many hosts died in between.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from flotilla.core.actor import Actor, Fact, Kind
from flotilla.core.effects import Answer, Due, Effects, Message
from flotilla.core.reminders import Forget, Remind

State = Literal["new", "open", "answered", "escalated"]


class Opened(Fact, frozen=True, kw_only=True, tag="opened"):
    answer_within_s: float


class Closed(Fact, frozen=True, tag="answered"):
    pass


class Escalated(Fact, frozen=True, tag="escalated"):
    pass


class Open(Message[State], frozen=True, kw_only=True, tag="open"):
    idempotent = True
    answer_within_s: float


class Close(Message[State], frozen=True, tag="close"):
    idempotent = True


class Look(Message[State], frozen=True, tag="look"):
    idempotent = True


class Ticket(Actor):
    kind: ClassVar[Kind] = Kind(
        name="ticket", messages=Open | Close | Look, facts=Opened | Closed | Escalated
    )

    state: State = "new"

    def apply(self, fact: Opened | Closed | Escalated) -> None:
        match fact:
            case Opened():
                self.state = "open"
            case Closed():
                self.state = "answered"
            case Escalated():
                self.state = "escalated"

    def on(self, signal: Any) -> Effects:
        match signal:
            case Open() if self.state == "new":
                sla = Remind(name="sla", after_s=signal.answer_within_s)
                fact = Opened(answer_within_s=signal.answer_within_s)
                return self.record(fact, remind=(sla,)), Answer(value=self.state)
            case Close() if self.state == "open":
                return self.record(Closed(), remind=(Forget(name="sla"),)), Answer(value=self.state)
            case Due() if self.state == "open":
                return (self.record(Escalated()),)
            case Due():
                return ()
            case _:
                return (Answer(value=self.state),)
