"""A process of the fleet: it beats with its state and load, holds its lease, and leaves when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from actors.lease import Lease
from actors.service import Ended, Service
from flotilla.core.members import Member
from tests.actors.membership import LOG, TOKEN, Board, Hands

pytestmark = pytest.mark.timeout(10)


async def echo(method: str, body: bytes) -> AsyncGenerator[bytes]:
    yield body


class Beats(Board):
    """Notes the beats; after so many of them nothing more is to be seen."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.said: list[Member] = []
        self._most, self.enough = most, asyncio.Event()

    async def beat(self, member: Member) -> None:
        self.said.append(member)
        if len(self.said) >= self._most:
            self.enough.set()
        await super().beat(member)


def service(board: Board, clock: Hands, **more: object) -> Service:
    return Service(
        role="host",
        handler=echo,
        directory=board,
        clock=clock,
        log=LOG,
        token=TOKEN,
        **more,  # type: ignore[arg-type]
    )


async def run_until(made: Service, event: asyncio.Event) -> None:
    running = asyncio.create_task(made.run("host-0", "127.0.0.1", lambda _: None))
    await event.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_each_beat_says_how_things_are_now() -> None:
    board, loads = Beats(3), iter(range(100))

    def report():
        return ("draining" if (n := next(loads)) > 1 else "up"), {"activations": float(n)}

    await run_until(service(board, Hands(), report=report, capacity=2.0), board.enough)
    assert [(m.state, m.load["activations"]) for m in board.said[:3]] == [
        ("up", 0.0),
        ("up", 1.0),
        ("draining", 2.0),
    ]
    assert {(m.life, m.capacity) for m in board.said} == {(board.said[0].life, 2.0)}


async def test_what_a_process_says_of_itself_may_change_while_it_lives() -> None:
    board, versions = Beats(2), iter(["m@0", "m@1", "m@2", "m@3"])
    await run_until(service(board, Hands(), info=lambda: {"version": next(versions)}), board.enough)
    assert [m.info["version"] for m in board.said[:2]] == ["m@1", "m@2"], (
        "the first was for who is told of it"
    )


async def test_who_ends_leaves_though_its_load_has_changed_with_each_beat() -> None:
    board, loads = Beats(3), iter(range(100))
    made = service(board, Hands(), report=lambda: ("up", {"activations": float(next(loads))}))
    await run_until(made, board.enough)
    assert await board.members("host") == []


async def test_the_lease_counts_from_when_the_beat_was_sent() -> None:
    clock, lease = Hands(), Lease()

    class Slow(Beats):
        async def beat(self, member: Member) -> None:
            sent.append(clock.at)
            clock.at += 0.7  # on the way
            await super().beat(member)

    sent: list[float] = []
    board = Slow(1)
    await run_until(service(board, clock, lease=lease), board.enough)
    assert lease.beaten_at in sent


async def test_a_beat_that_is_missed_renews_nothing_and_ends_nothing() -> None:
    clock, board, lease = Hands(), Beats(5), Lease()
    board.down.add("members")
    await run_until(service(board, clock, lease=lease), board.enough)
    assert not lease.valid(clock.at)


async def test_housekeeping_that_ends_the_process_for_good_closes_everything() -> None:
    board, closed = Beats(1), []

    async def close() -> None:
        closed.append(True)

    async def work(_: Member) -> None:
        await board.enough.wait()
        raise Ended("its work is done")

    made = service(board, Hands(), housekeeping=(work,), closers=(close,))
    await made.run("host-0", "127.0.0.1", lambda _: None)
    assert closed == [True] and await board.members("host") == []


async def test_housekeeping_that_breaks_breaks_the_process() -> None:
    async def work(_: Member) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(ExceptionGroup):
        await service(Board(), Hands(), housekeeping=(work,)).run("h", "127.0.0.1", lambda _: None)
