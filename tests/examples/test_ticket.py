"""The ticket of examples/ticket.py: without a cluster, as a kind is tested."""

from __future__ import annotations

from datetime import UTC, datetime

from examples.ticket import Close, Closed, Escalated, Look, Open, Opened, Ticket
from flotilla.core.effects import Answer, Due, Record
from flotilla.core.ids import ActorId
from flotilla.core.reminders import Forget, Remind

DUE = Due(name="sla", at=datetime(2026, 11, 22, tzinfo=UTC))


def ticket(*heard: object) -> Ticket:
    made = Ticket(id=ActorId("demo", "ticket", "t-1"))
    for signal in heard:
        made.on(signal)
    return made


def test_opening_sets_the_reminder_with_the_fact() -> None:
    record, answer = ticket().on(Open(answer_within_s=60))
    assert isinstance(record, Record) and record.facts == (Opened(answer_within_s=60),)
    assert record.remind == (Remind(name="sla", after_s=60),) and answer == Answer(value="open")


def test_an_answer_in_time_forgets_it() -> None:
    record, answer = ticket(Open(answer_within_s=60)).on(Close())
    assert isinstance(record, Record) and record.facts == (Closed(),)
    assert record.remind == (Forget(name="sla"),) and answer == Answer(value="answered")


def test_no_answer_in_time_escalates_once() -> None:
    late = ticket(Open(answer_within_s=60))
    (record,) = late.on(DUE)
    assert isinstance(record, Record) and record.facts == (Escalated(),)
    assert late.on(DUE) == () and late.on(Look()) == (Answer(value="escalated"),)


def test_a_reminder_that_comes_behind_the_answer_changes_nothing() -> None:
    assert ticket(Open(answer_within_s=60), Close()).on(DUE) == ()
