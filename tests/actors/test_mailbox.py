"""What waits for an actor."""

from __future__ import annotations

import pytest

from actors.mailbox import Envelope, Mailbox
from actors.tickets import Promise
from flotilla.core import signals
from flotilla.core.errors import MailboxFull
from flotilla.core.generation import Usage


def put(box: Mailbox, *heard: object, bounded: bool = False) -> None:
    for signal in heard:
        box.put(Envelope(signal), bounded=bounded)


def taken(box: Mailbox) -> list[object]:
    return [box.take().signal for _ in range(len(box))]


def streamed(text: str, run: str = "t_1") -> signals.Streamed:
    return signals.Streamed(turn="t_1", run=run, text=text)


def post(id: str) -> signals.Post:
    return signals.Post(id=id, text="Hello")


DONE = signals.Generated(turn="t_1", run="t_1", usage=Usage())


async def test_signals_come_out_as_they_went_in() -> None:
    box = Mailbox(8)
    put(box, post("1"), DONE, post("2"))
    assert taken(box) == [post("1"), DONE, post("2")] and not len(box)


async def test_control_overtakes_what_waits_and_keeps_its_order() -> None:
    box = Mailbox(8)
    put(box, post("1"), signals.Interrupt(), post("2"), signals.Close())
    assert taken(box) == [signals.Interrupt(), signals.Close(), post("1"), post("2")]


async def test_text_behind_text_of_the_same_run_is_one_signal() -> None:
    box = Mailbox(8)
    put(box, streamed("a"), streamed("b"), streamed("c", "t_1.2"), DONE, streamed("d"))
    assert taken(box) == [streamed("ab"), streamed("c", "t_1.2"), DONE, streamed("d")]


async def test_past_the_limit_a_message_is_refused_and_the_actors_own_work_gets_in() -> None:
    box = Mailbox(2)
    put(box, post("1"), post("2"), bounded=True)
    with pytest.raises(MailboxFull, match="2 messages wait"):
        put(box, post("3"), bounded=True)
    put(box, streamed("a"))
    put(box, signals.Interrupt(), bounded=True)  # a stop gets in where the turns are full
    assert len(box) == 4


async def test_what_is_put_back_is_first_in_its_line() -> None:
    box = Mailbox(8)
    put(box, post("1"), post("2"), signals.Interrupt())
    box.put_back(Envelope(post("0")))
    assert taken(box) == [signals.Interrupt(), post("0"), post("1"), post("2")]


async def test_reports_can_be_dropped_and_whoever_waits_stays() -> None:
    box = Mailbox(8)
    waiting = Envelope(post("1"), Promise())
    put(box, streamed("a"))
    box.put(waiting, bounded=True)
    box.drop(lambda signal: True)
    assert box.take() is waiting and not len(box)


async def test_whoever_waits_is_found_when_it_is_emptied() -> None:
    box = Mailbox(8)
    asked = [Envelope(signals.Interrupt(), Promise()), Envelope(post("1"), Promise())]
    for envelope in reversed(asked):
        box.put(envelope, bounded=True)
    assert box.take_all() == asked and not len(box) and box.types() == []
