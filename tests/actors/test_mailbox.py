"""What waits for an actor: bounded, in order, control first."""

from __future__ import annotations

import asyncio

import pytest

from actors.mailbox import Mailbox
from flotilla.core.errors import LimitReached
from flotilla.core.generation import Usage
from flotilla.core.signals import Close, Describe, Generated, Interrupt, Post, Signal, Streamed


def drain(mailbox: Mailbox) -> list[Signal]:
    return [mailbox.take()[0] for _ in range(len(mailbox))]


def said(text: str, turn: str = "t_1") -> Streamed:
    return Streamed(turn=turn, text=text)


async def ticket() -> asyncio.Future:
    return asyncio.get_running_loop().create_future()


def test_signals_come_out_as_they_went_in() -> None:
    mailbox, posts = Mailbox(), [Post(id=f"c-{n}", text="x") for n in range(5)]
    for post in posts:
        mailbox.put(post)
    assert drain(mailbox) == posts and not mailbox


def test_a_stop_and_a_close_overtake_what_waits_and_keep_their_order() -> None:
    mailbox = Mailbox()
    for signal in (said("a"), Post(id="c", text="x"), Interrupt(), Close(), Interrupt()):
        mailbox.put(signal)
    assert [type(s) for s in drain(mailbox)] == [Interrupt, Close, Interrupt, Streamed, Post]


def test_text_behind_text_of_the_same_turn_is_one_signal() -> None:
    mailbox = Mailbox()
    for signal in (said("a"), said("b"), said("c", "t_2"), said("d"), Describe(), said("e"), said("f")):
        mailbox.put(signal)
    assert drain(mailbox) == [said("ab"), said("c", "t_2"), said("d"), Describe(), said("ef")]


def test_the_end_of_a_text_stays_behind_it() -> None:
    mailbox = Mailbox()
    end = Generated(turn="t_1", usage=Usage())
    for signal in (said("a"), said("b"), end):
        mailbox.put(signal)
    assert drain(mailbox) == [said("ab"), end]


async def test_past_the_limit_an_ask_is_refused_and_the_actors_own_work_gets_in() -> None:
    mailbox = Mailbox(signals_max=2)
    for id in ("c-1", "c-2"):
        mailbox.put(Post(id=id, text="x"), await ticket())
    with pytest.raises(LimitReached) as caught:
        mailbox.put(Post(id="c-3", text="x"), await ticket())
    assert caught.value.retry_after_s
    mailbox.put(Generated(turn="t_1", usage=Usage()))
    assert len(mailbox) == 3


async def test_a_stop_gets_in_where_the_mailbox_is_full() -> None:
    """A stop must reach an actor that talks, however much waits for it."""
    mailbox = Mailbox(signals_max=1)
    mailbox.put(Post(id="c-1", text="x"), await ticket())
    mailbox.put(Interrupt(), await ticket())
    assert mailbox.take()[0] == Interrupt()


async def test_whoever_waits_is_found_when_it_is_emptied() -> None:
    mailbox, tickets = Mailbox(), [await ticket() for _ in range(3)]
    mailbox.put(Post(id="c", text="x"), tickets[0])
    mailbox.put(said("a"))
    mailbox.put(Interrupt(), tickets[1])
    mailbox.put(Describe(), tickets[2])
    assert set(mailbox.take_tickets()) == set(tickets) and not mailbox
