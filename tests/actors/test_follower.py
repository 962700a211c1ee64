"""A bounded queue of frames between an actor and somebody who watches it."""

from __future__ import annotations

import asyncio

import pytest

from actors.follower import Follower
from flotilla.core.errors import LimitReached, Unavailable

GONE = Unavailable("Gone.")


async def read(follower: Follower) -> tuple[list[bytes], Exception | None]:
    got = []
    try:
        async for frame in follower.frames():
            got.append(frame)
    except (LimitReached, Unavailable) as error:
        return got, error
    return got, None


async def test_frames_come_in_order_and_the_reason_of_the_end_after_them() -> None:
    follower = Follower(0)
    for n in range(5):
        follower.put(b"%d" % n)
    follower.end(GONE)
    assert await read(follower) == ([b"0", b"1", b"2", b"3", b"4"], GONE)


async def test_a_reader_gets_frames_while_it_waits() -> None:
    follower = Follower(0)
    task = asyncio.create_task(read(follower))
    await asyncio.sleep(0)
    follower.put(b"a")
    await asyncio.sleep(0)
    follower.put(b"b")
    follower.end(GONE)
    assert await task == ([b"a", b"b"], GONE)


async def test_a_reader_too_far_behind_is_let_go_with_what_it_needs_to_resume() -> None:
    follower = Follower(0, frames_max=3)
    for n in range(9):
        follower.put(b"%d" % n)
    assert follower.ended
    got, error = await read(follower)
    assert got == [b"0", b"1", b"2"]
    assert isinstance(error, LimitReached) and error.retry_after_s and "after" in str(error)


async def test_nothing_comes_after_a_gap() -> None:
    """Once a frame was left out, those behind it would not join."""
    follower = Follower(0, frames_max=2)
    for frame in (b"0", b"1", b"2"):
        follower.put(frame)
    frames = follower.frames()
    assert await anext(frames) == b"0"
    follower.put(b"3")
    assert await anext(frames) == b"1"
    with pytest.raises(LimitReached):
        await anext(frames)


async def test_the_first_reason_of_an_end_stands() -> None:
    follower = Follower(0)
    follower.end(GONE)
    follower.end(LimitReached("Later."))
    assert await read(follower) == ([], GONE)


def test_how_much_of_a_reply_was_seen_counts_for_that_reply_only() -> None:
    follower = Follower(4, offset=17)  # the reply under way at event 4 was started with event 3
    assert follower.seen_of(3) == 17 and follower.seen_of(6) == 0
