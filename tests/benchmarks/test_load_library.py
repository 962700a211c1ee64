"""The load fleet by the client library: what it notes is what the lean client notes, and no fault is hidden."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

import numpy as np
import pytest

from benchmarks.load.conversation import Conversation, Door
from benchmarks.load.crowd import Crowd
from benchmarks.load.library import AskDoor, TalkDoor
from benchmarks.load.notes import COMPLETED, ERROR, SHED, Notes, Turn
from benchmarks.load.orders import Recruit
from benchmarks.load.scenario import WAYS, Client, Ramp, Scenario, Ways
from benchmarks.load.tasks import Tasks
from benchmarks.load.watch import Watch
from flotilla.client import AsyncClient, ClientLimits, Completed, Delta, Event, Patience, Session, Started
from flotilla.client.reading import Reader
from tests.client.rpc_server import serving_rpc
from tests.client.server import Mischief, SmallFleet, serving
from tests.client.test_client_resuming import LIMITS, QUICK

TURNS = 3
TAIL = {"tail"}  # the small fleet's last word may come with the reply's end: the library mends that
CLIENTS: tuple[Client, ...] = ("lean", "library")


@asynccontextmanager
async def crowd(fleet: SmallFleet, client: Client) -> AsyncGenerator[Crowd]:
    """Two conversations over every way in, connected; each text is checked."""
    scenario = Scenario(
        about="",
        conversations=8,
        ways=Ways(websocket=1, sse=1, http=1, grpc=1),
        phases=(Ramp(),),
        checked=1.0,
        client=client,
    )
    async with AsyncExitStack() as stack:
        url, rpc = (
            await stack.enter_async_context(serving(fleet)),
            await stack.enter_async_context(serving_rpc(fleet)),
        )
        recruit = Recruit(
            scenario=scenario, url=url, rpc=rpc, key="dev", seed=1, run="r", worker=0, workers=1
        )
        made = Crowd(recruit, Notes(time.monotonic()))
        await made.open_sessions()
        await made.connect(per_s=1000)
        try:
            yield made
        finally:
            await made.drain(20.0)
            await made.close()


async def played(client: Client, mischief: Mischief) -> Notes:
    """What is noted of a few turns of each conversation, the later ones held until the first are over."""
    fleet = SmallFleet(words=20, step_s=0.001)
    async with crowd(fleet, client) as made:
        fleet.mischief = mischief
        for number, conversation in made.conversations.items():
            for n in range(TURNS):
                turn = Turn(f"m-{number}-{n}", n, time.monotonic(), 1, made.way_of(number))
                conversation.ask(turn)
    return made.notes


SEEN = ("sent_s", "accepted_s", "first_s", "end_s", "total")


def rows(notes: Notes, seen: tuple[str, ...] = SEEN) -> list[tuple[int, ...]]:
    """Of each turn what does not depend on the clock: its way, its outcome, how much came, and what was seen."""
    turns = notes.turns()
    happened = [(~np.isnan(turns[name])).astype(int) for name in seen]
    columns = (turns["way"], turns["outcome"], turns["characters"], *happened)
    return sorted(tuple(int(value) for value in row) for row in zip(*columns, strict=True))


async def test_on_every_way_it_notes_what_the_lean_client_notes() -> None:
    lean, library = [await played(client, Mischief()) for client in CLIENTS]
    assert lean.errors.keys() <= TAIL and library.errors == {}
    assert rows(lean) == rows(library)
    assert {way for way, *_ in rows(library)} == set(range(len(WAYS)))
    assert {outcome for _, outcome, *_ in rows(library)} == {COMPLETED}
    assert lean.counts["held"] == library.counts["held"] == 8 * (TURNS - 1)


@pytest.mark.parametrize("seed", range(3))
async def test_and_with_connections_that_break(seed: int) -> None:
    """But for the first token of a reply that came and went while its customer was away: the library makes one of
    what was missed, which is late."""
    seen = tuple(name for name in SEEN if name != "first_s")
    lean, library = [await played(client, Mischief(seed, cut=0.05)) for client in CLIENTS]
    assert lean.errors.keys() <= TAIL and library.errors == {}
    assert rows(lean, seen) == rows(library, seen)
    assert library.counts["tried again: unavailable"] > 0


async def test_a_turn_that_was_shed_and_then_answered_is_late() -> None:
    notes = await played("library", Mischief(4, shed=0.3))
    assert notes.errors == {}
    assert notes.counts["tried again: overloaded"] > 0
    assert notes.counts["shed"] == 0
    assert {outcome for _, outcome, *_ in rows(notes)} == {COMPLETED}


async def test_what_the_fleet_loses_and_the_library_mends_is_a_gap() -> None:
    notes = await played("library", Mischief(1, lose=0.1))
    assert notes.errors["gap"] > 0 and notes.errors.keys() == {"gap"}
    assert {outcome for _, outcome, *_ in rows(notes)} == {COMPLETED}


# -- faults of the library's own

Show = Callable[[tuple[Event, ...]], tuple[Event, ...]]


def without_its_second_delta() -> Show:
    deltas = count(1)
    return lambda events: tuple(e for e in events if not isinstance(e, Delta) or next(deltas) != 2)


def without(kind: type) -> Callable[[], Show]:
    return lambda: lambda events: tuple(e for e in events if not isinstance(e, kind))


def twice(kind: type) -> Callable[[], Show]:
    return lambda: lambda events: tuple(e for e in events for _ in range(1 + isinstance(e, kind)))


@pytest.mark.parametrize(
    ("fault", "noticed"),
    [
        (without_its_second_delta, "gap"),
        (without(Started), "gap"),
        (twice(Delta), "doubled"),
        (twice(Started), "doubled"),
        (without(Delta), "tail"),
    ],
)
async def test_a_fault_of_the_librarys_is_noticed(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[], Show], noticed: str
) -> None:
    take, show = Reader.take, fault()

    def faulty(reader: Reader, event: Event) -> tuple[Event, ...]:
        return show(take(reader, event))

    monkeypatch.setattr(Reader, "take", faulty)
    fleet = SmallFleet(words=20, step_s=0.001)
    async with talking(fleet) as (conversation, notes):
        await over(conversation)
    assert noticed in notes.errors


async def test_a_reply_that_the_library_never_shows_is_a_turn_that_is_not_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take, ended = Reader.take, asyncio.Event()

    def dropping(reader: Reader, event: Event) -> tuple[Event, ...]:
        shown = take(reader, event)
        if isinstance(event, Completed):
            ended.set()
            return ()
        return shown

    monkeypatch.setattr(Reader, "take", dropping)
    async with talking(SmallFleet()) as (conversation, notes):
        await ended.wait()
        conversation.give_up()
    assert notes.turns()["outcome"].tolist() == [3]


@asynccontextmanager
async def talking(fleet: SmallFleet) -> AsyncGenerator[tuple[Conversation, Notes]]:
    """A conversation over WebSocket that has asked its first question."""
    async with serving(fleet) as url, AsyncClient(url, patience=QUICK, limits=LIMITS) as client:
        conversation, notes, tasks = await opened(client, TalkDoor)
        conversation.ask(Turn("m", 0, time.monotonic(), 0, 0))
        yield conversation, notes
        assert conversation.door is not None
        await conversation.door.close()
        await tasks.cancel()


async def opened(
    client: AsyncClient, door: Callable[[Session, Conversation, Tasks], Door]
) -> tuple[Conversation, Notes, Tasks]:
    session, tasks = await client.sessions.open(), Tasks()
    notes = Notes(time.monotonic())
    conversation = Conversation(0, notes, Watch(0.25), checks=True)
    conversation.session, conversation.seq = session.id, session.seq
    conversation.door = door(session, conversation, tasks)
    await conversation.door.connect()
    return conversation, notes, tasks


async def over(conversation: Conversation) -> None:
    """Returns when nothing runs."""
    async with asyncio.timeout(20.0):
        while conversation.turn is not None:
            await asyncio.sleep(0.001)


# -- what the library gives up


@pytest.mark.parametrize("door", [TalkDoor, AskDoor])
async def test_a_turn_is_shed_if_it_is_refused_until_patience_is_over(
    door: Callable[[Session, Conversation, Tasks], Door],
) -> None:
    fleet, patience = SmallFleet(), Patience(first_s=0.001, tries_max=3)
    limits = ClientLimits(again_s=0.001, message_tries_max=3)
    async with serving(fleet) as url, AsyncClient(url, patience=patience, limits=limits) as client:
        conversation, notes, tasks = await opened(client, door)
        fleet.mischief.shed = 1.0
        conversation.ask(Turn("m", 0, time.monotonic(), 0, 0))
        await over(conversation)
        assert conversation.door is not None
        await conversation.door.close()
        await tasks.cancel()
    assert notes.turns()["outcome"].tolist() == [SHED]
    assert notes.errors == {} and notes.counts["shed"] == 1


async def test_a_fleet_that_is_gone_is_unreachable() -> None:
    fleet, patience = SmallFleet(), Patience(first_s=0.001, longest_s=0.001, tries_max=3)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(fleet))
        client = await stack.enter_async_context(AsyncClient(url, patience=patience, limits=LIMITS))
        conversation, notes, tasks = await opened(client, AskDoor)
        fleet.mischief.cut = 1.0
        conversation.ask(Turn("m", 0, time.monotonic(), 0, 0))
        await over(conversation)
        await tasks.cancel()
    assert notes.turns()["outcome"].tolist() == [ERROR]
    assert notes.errors == {"unreachable": 1}
