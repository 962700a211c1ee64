"""A bounded queue of frames between an actor and somebody who watches it, here and behind a link."""

from __future__ import annotations

import asyncio

from actors.follower import Follower, Local, Remote
from actors.outlet import Outlet
from flotilla.core.errors import FlotillaError, LimitReached, Unavailable
from flotilla.core.limits import LIMITS
from tests.actors.sinks import Got

GONE = Unavailable("Gone.")


def watched(frames_max: int = LIMITS.follower_events_max) -> tuple[Local, Got]:
    got = Got()
    return Local(0, 0, got, frames_max), got


async def test_frames_come_in_order_and_the_reason_of_the_end_after_them() -> None:
    follower, got = watched()
    for n in range(5):
        follower.put(b"%d" % n)
    follower.end(GONE)
    assert got.frames == []  # not in the actor's own turn of the loop
    await got.over.wait()
    assert (got.frames, got.error) == ([b"0", b"1", b"2", b"3", b"4"], GONE)


async def test_a_reader_gets_frames_while_it_waits() -> None:
    follower, got = watched()
    follower.put(b"a")
    await asyncio.sleep(0)
    assert got.frames == [b"a"]
    follower.put(b"b")
    follower.end(GONE)
    await got.over.wait()
    assert got.frames == [b"a", b"b"]


async def test_a_reader_too_far_behind_is_let_go_with_what_it_needs_to_resume() -> None:
    """And nothing comes after the gap: it would not join."""
    follower, got = watched(frames_max=3)
    for n in range(9):
        follower.put(b"%d" % n)
    assert follower.ended
    await got.over.wait()
    assert got.frames == [b"0", b"1", b"2"]
    assert isinstance(got.error, LimitReached) and got.error.retry_after_s and "after" in str(got.error)


async def test_a_sink_that_takes_nothing_gets_a_window_and_no_more() -> None:
    follower, got = watched()
    for n in range(LIMITS.link_window_items + 10):
        follower.put(b"%d" % n)
    await asyncio.sleep(0)
    assert len(got.frames) == LIMITS.link_window_items
    follower.take()
    await asyncio.sleep(0)
    assert len(got.frames) == LIMITS.link_window_items + 10


async def test_one_that_has_closed_hears_nothing() -> None:
    follower, got = watched()
    left: list[bool] = []
    follower.on_gone = lambda: left.append(True)
    follower.put(b"a")
    follower.close()
    follower.close()
    await asyncio.sleep(0)
    assert got.frames == [] and got.error is None and left == [True]


async def test_the_first_reason_of_an_end_stands() -> None:
    follower, got = watched()
    follower.end(GONE)
    follower.end(LimitReached("Later."))
    await got.over.wait()
    assert got.error is GONE


class Socket:
    """The side of a link that an outlet writes to."""

    def __init__(self) -> None:
        self.full = False
        self.held: set[Outlet] = set()
        self.sent: list[bytes] = []
        self.ends: list[FlotillaError | None] = []
        self.open = True

    def send_item(self, stream: int, body: bytes) -> None:
        self.sent.append(body)

    def close(self, outlet: Outlet) -> bool:
        was, self.open = self.open, False
        return was

    def end(self, stream: int, error: FlotillaError | None) -> None:
        self.ends.append(error)


def behind_a_link() -> tuple[Remote, Outlet, Socket]:
    socket = Socket()
    outlet = Outlet(socket, 1)
    return Remote(0, 0, outlet), outlet, socket


def test_what_the_reader_has_credit_for_leaves_at_once_and_the_rest_when_it_has_more() -> None:
    follower, outlet, socket = behind_a_link()
    for n in range(LIMITS.link_window_items + 3):
        follower.put(b"%d" % n)
    assert len(socket.sent) == LIMITS.link_window_items
    outlet.grant(2)
    assert len(socket.sent) == LIMITS.link_window_items + 2
    outlet.grant(64)
    assert socket.sent == [b"%d" % n for n in range(LIMITS.link_window_items + 3)]


def test_a_full_socket_holds_what_comes_and_gets_it_in_order() -> None:
    follower, outlet, socket = behind_a_link()
    socket.full = True
    follower.put(b"a")
    follower.put(b"b")
    assert socket.sent == [] and socket.held == {outlet}
    socket.full = False
    follower.put(b"c")  # behind those that wait
    outlet.grant(0)
    assert socket.sent == [b"a", b"b", b"c"]


def test_the_reason_of_the_end_comes_behind_the_last_frame() -> None:
    follower, outlet, socket = behind_a_link()
    socket.full = True
    follower.put(b"a")
    follower.end(GONE)
    assert socket.ends == []
    socket.full = False
    outlet.grant(0)
    assert socket.sent == [b"a"] and socket.ends == [GONE]


def test_how_much_of_a_reply_was_seen_counts_for_that_reply_only() -> None:
    follower = Follower(4, offset=17)  # the reply under way at event 4 was started with event 3
    assert follower.seen_of(3) == 17 and follower.seen_of(6) == 0
