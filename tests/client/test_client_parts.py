"""The client's parts that need no fleet: what is tried again, the outbox, event streams cut into bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from flotilla.client import ClientLimits, Patience
from flotilla.client.conversing import Outgoing
from flotilla.client.outbox import Outbox
from flotilla.client.sockets import why_closed
from flotilla.client.sse import Unpacker
from flotilla.client.trying import Trying
from flotilla.core.errors import (
    BudgetSpent,
    Conflict,
    FlotillaError,
    LimitReached,
    Overloaded,
    Refused,
    TooLarge,
    Unauthenticated,
    Unavailable,
)


class Hands:
    """A clock whose hands are turned by sleeping."""

    def __init__(self) -> None:
        self.time = 100.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, UTC)

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


def trying(patience: Patience) -> tuple[Trying, Hands]:
    hands = Hands()
    return Trying(patience, hands, Random(1)), hands


# -- trying again


async def test_pauses_grow_are_drawn_by_chance_and_begin_anew_after_a_success() -> None:
    it, hands = trying(Patience(first_s=1.0, longest_s=4.0, most_s=100.0))
    for _ in range(4):
        await it.pause(Unavailable("gone"))
    it.progressed()
    await it.pause(Unavailable("gone"))
    longest = [1.0, 2.0, 4.0, 4.0, 1.0]
    assert all(most / 2 <= slept <= most for slept, most in zip(hands.slept, longest, strict=True))
    assert len(set(hands.slept)) == 5


async def test_the_fleet_is_given_the_time_that_it_asks_for() -> None:
    it, hands = trying(Patience(first_s=0.1, most_s=100.0))
    await it.pause(Overloaded("full", retry_after_s=7.0))
    assert hands.slept == [7.0]


async def test_patience_ends_by_tries_and_by_time() -> None:
    it, _ = trying(Patience(tries_max=2))
    await it.pause(Unavailable("gone"))
    with pytest.raises(Unavailable):
        await it.pause(Unavailable("gone"))
    it, hands = trying(Patience(first_s=1.0, most_s=10.0))
    with pytest.raises(Overloaded):  # it would be too late
        await it.pause(Overloaded("full", retry_after_s=11.0))
    assert hands.slept == []


@pytest.mark.parametrize("error", [Refused("no"), Conflict("no"), BudgetSpent("no"), FlotillaError("a bug")])
async def test_what_another_try_would_not_help_is_raised_at_once(error: FlotillaError) -> None:
    it, hands = trying(Patience())
    with pytest.raises(type(error)):
        await it.pause(error)
    assert hands.slept == []


# -- the outbox


def message(id: str) -> Outgoing:
    return Outgoing(id=id, text="?")


def test_messages_go_one_at_a_time_in_order_and_again_when_overdue() -> None:
    box = Outbox(ClientLimits(overdue_s=15.0))
    box.add(message("a"))
    box.add(message("b"))
    assert box.due(1.0) == message("a")
    assert box.due(2.0) is None and box.next_due == 16.0
    assert box.due(16.0) == message("a")
    box.accepted("a")
    box.accepted("a")
    assert box.due(16.0) == message("b")
    box.reconnected()
    assert box.due(16.5) == message("b")
    box.accepted("b")
    assert box.due(99.0) is None and box.next_due is None and len(box) == 0


def test_a_message_that_is_put_off_too_often_is_out() -> None:
    box = Outbox(ClientLimits(message_tries_max=2))
    box.add(message("a"))
    assert box.due(0.0) == message("a")
    assert box.put_off("a", until=5.0)
    assert box.due(4.0) is None and box.due(5.0) == message("a")
    assert not box.put_off("a", until=9.0) and len(box) == 0
    assert not box.put_off("a", until=9.0)


def test_the_outbox_is_bounded() -> None:
    box = Outbox(ClientLimits(outbox_messages_max=1))
    box.add(message("a"))
    with pytest.raises(LimitReached) as full:
        box.add(message("b"))
    assert full.value.field == "outbox_messages_max"


# -- server-sent events


@given(st.lists(st.text(min_size=1).filter(lambda text: not set(text) & set("\r\n"))), st.data())
def test_events_are_the_same_however_their_bytes_are_cut(said: list[str], data: st.DataObject) -> None:
    stream = b"".join(f": quiet\n\nid: 1\r\nevent: x\r\ndata: {text}\r\n\r\n".encode() for text in said)
    unpacker, out = Unpacker(1 << 20), list[bytes]()
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        out += unpacker.feed(stream[:size])
        stream = stream[size:]
    assert out == [text.encode() for text in said]


def test_an_event_that_is_not_whole_was_never_sent_and_lines_are_joined() -> None:
    unpacker = Unpacker(100)
    assert unpacker.feed(b"data: 1\ndata: 2\n\ndata: 3\n") == [b"1\n2"]


def test_an_event_without_end_is_too_large() -> None:
    with pytest.raises(TooLarge):
        Unpacker(10).feed(b"data: " + b"x" * 10)
    many = Unpacker(10)
    with pytest.raises(TooLarge):
        many.feed(b"data: xxxx\n" * 10)


# -- why a socket was closed


@pytest.mark.parametrize(
    ("code", "kind"),
    [(1012, Unavailable), (1013, Unavailable), (1001, Unavailable), (4401, Unauthenticated), (1008, Refused)],
)
def test_a_close_code_says_whether_to_come_back(code: int, kind: type[FlotillaError]) -> None:
    closed = ConnectionClosedError(Close(code, "why"), None)
    assert type(why_closed(closed, None)) is kind and "why" in why_closed(closed, None).detail
    told = Conflict("as told")
    assert why_closed(closed, told) is told


def test_a_connection_that_just_ends_is_come_back_from() -> None:
    assert type(why_closed(ConnectionClosedError(None, None), None)) is Unavailable
