"""A visitor's token is renewed by itself: before it ends, and once if it is refused; over every wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from flotilla.client import AsyncClient, Client, Completed, Event, Patience
from flotilla.client.credential import LONGEST_S, visit_of
from flotilla.client.rpc import RpcClient
from flotilla.core.errors import Refused, Unauthenticated
from tests.client.rpc_server import serving_rpc
from tests.client.server import SmallFleet, serving
from tests.client.test_client_resuming import QUICK, durable, shown
from tests.client.turned import Turned
from tests.client.visits import LIFE_S

WIRES = ("websocket", "sse", "grpc")


class World:
    """A fleet with one session, its visitor's token, and a clock that all go by."""

    def __init__(self, words: int = 12, step_s: float = 0.0) -> None:
        self.fleet = SmallFleet(words=words, step_s=step_s)
        self.visits = self.fleet.visits
        self.session = self.fleet.open()
        self.there = self.fleet.sessions[self.session]
        self.token = self.visits.issue(self.session)
        self.clock = Turned()

    def turn(self, seconds: float) -> None:
        self.visits.now += seconds
        self.clock.turn(seconds)

    async def until_renewed(self) -> None:
        """Turns the clock until the client has fetched another token."""
        while self.visits.renewals.empty():
            if self.clock.sleeping:
                self.turn(min(self.clock.sleeping))
            await asyncio.sleep(0.001)
        self.visits.renewals.get_nowait()

    @asynccontextmanager
    async def client(self, wire: str, **options: Any) -> AsyncGenerator[Any]:
        options = {"key": self.token, "patience": QUICK, "clock": self.clock, **options}
        if wire == "grpc":
            async with serving_rpc(self.fleet) as address, RpcClient(address, **options) as mine:
                yield mine
        else:
            async with serving(self.fleet) as url, AsyncClient(url, **options) as mine:
                yield mine

    @asynccontextmanager
    async def following(self, wire: str, **options: Any) -> AsyncGenerator[AsyncIterator[Event]]:
        async with self.client(wire, **options) as mine:
            session = mine.sessions.at(self.session)
            if wire == "websocket":
                async with session.connect() as talk:
                    yield talk
            else:
                async with aclosing(session.follow()) as events:
                    yield events


async def up_to_the_end_of(id: str, events: AsyncIterator[Event]) -> list[Event]:
    seen = list[Event]()
    async for event in events:
        seen.append(event)
        if isinstance(event, Completed) and event.turn == f"t_{id}":
            return seen
    raise AssertionError("it ended")


@pytest.mark.parametrize("wire", WIRES)
async def test_who_follows_outlives_any_number_of_tokens(wire: str) -> None:
    world, seen = World(), list[Event]()
    async with world.following(wire) as events:
        for life in range(3):
            world.there.post(f"m{life}", "?")
            seen += await up_to_the_end_of(f"m{life}", events)
            await world.until_renewed()
            world.visits.end(world.visits.tokens[life])  # what it has opened ends, between two replies
    assert durable(seen) == list(range(1, world.there.seq + 1))
    assert len(world.visits.tokens) == 4
    assert world.clock.time < 3 * LIFE_S


@pytest.mark.parametrize("wire", WIRES)
async def test_a_reply_under_way_goes_on_over_the_end_of_a_token(wire: str) -> None:
    world, seen = World(words=60, step_s=0.001), list[Event]()
    async with world.following(wire) as events:
        seen.append(await anext(events))
        await world.until_renewed()
        world.there.post("m", "?")
        while len(shown(seen, "t_m")) < 40:
            seen.append(await anext(events))
        world.visits.end(world.token)
        seen += await up_to_the_end_of("m", events)
    assert durable(seen) == [1, 2, 3, 4]
    assert shown(seen, "t_m") == world.there.reply_to("m")


@pytest.mark.parametrize("wire", WIRES)
async def test_who_is_turned_away_comes_back_with_another_token_once(wire: str) -> None:
    world = World()
    world.visits.stale.add(world.token)
    async with world.following(wire) as events:
        world.there.post("m", "?")
        assert durable(await up_to_the_end_of("m", events)) == [1, 2, 3, 4]
    assert world.visits.refused == 1 and len(world.visits.tokens) == 2


@pytest.mark.parametrize("wire", ["sse", "grpc"])
async def test_calls_come_back_with_another_token_too(wire: str) -> None:
    world = World()
    async with world.client(wire) as mine:
        session = mine.sessions.at(world.session)
        world.visits.stale.add(world.token)
        found = await asyncio.gather(*(session.events() for _ in range(8)))
        assert all(len(page) == 1 for page in found)
        assert len(world.visits.tokens) == 2  # eight were refused, one has renewed
        assert (await session.ask("?", id="m")).text == world.there.reply_to("m")


@pytest.mark.parametrize("wire", WIRES)
async def test_a_token_that_is_renewed_and_refused_all_the_same_is_raised(wire: str) -> None:
    world = World()
    world.visits.stale |= {world.token}
    issue = world.visits.issue

    def stale(session: str) -> str:
        world.visits.stale.add(token := issue(session))
        return token

    world.visits.issue = stale  # type: ignore[method-assign]
    async with world.following(wire) as events:
        with pytest.raises(Unauthenticated):
            await anext(events)
    assert len(world.visits.tokens) == 2


@pytest.mark.parametrize("wire", WIRES)
async def test_a_token_that_has_ended_is_tried_once(wire: str) -> None:
    world = World()
    world.visits.end(world.token)
    async with world.client(wire) as mine:
        session = mine.sessions.at(world.session)
        for _ in range(3):
            with pytest.raises(Unauthenticated):
                await session.ask("?")
    assert world.visits.refused == 4  # each message, and one renewal


@pytest.mark.parametrize("wire", ["sse", "grpc"])
async def test_an_api_key_is_never_renewed(wire: str) -> None:
    world = World()
    async with world.client(wire, key="dev") as mine:
        await mine.sessions.at(world.session).ask("?")
        assert not world.clock.sleeping
    async with world.client(wire, key="wr.o.ng") as mine:
        with pytest.raises(Unauthenticated):
            await mine.sessions.at(world.session).events()
    assert world.visits.refused == 1 and len(world.visits.tokens) == 1


async def test_a_renewal_that_fails_is_tried_again_while_the_token_is_good() -> None:
    world = World()
    world.visits.away = 2
    async with world.client("sse", patience=Patience(first_s=0.01, tries_max=2)) as mine:
        session = mine.sessions.at(world.session)
        await session.events()
        await world.until_renewed()
        assert world.clock.time < LIFE_S and not world.visits.away
        world.visits.end(world.token)
        assert len(await session.events()) == 1


async def test_nothing_is_renewed_before_the_first_use_or_behind_the_last() -> None:
    world = World()
    before = asyncio.all_tasks()
    async with serving(world.fleet) as url:
        served = asyncio.all_tasks() - before
        mine = AsyncClient(url, world.token, clock=world.clock)
        assert not world.clock.sleeping
        await mine.sessions.at(world.session).events()
        await asyncio.sleep(0)
        assert world.clock.sleeping == [LONGEST_S]  # half of its life, but no longer than clocks are trusted
        await mine.aclose()
        ours = {task for task in asyncio.all_tasks() - before - served if "flotilla" in task.get_name()}
        assert not ours


async def test_clocks_that_disagree_wildly_do_no_harm() -> None:
    world = World()
    world.clock.turn(5 * LIFE_S)  # by ours the token was over long ago
    async with world.client("sse") as mine:
        session = mine.sessions.at(world.session)
        for _ in range(3):
            assert await session.events()
            await world.until_renewed()
    assert len(world.visits.tokens) == 4


async def test_the_synchronous_client_renews_as_well() -> None:
    world = World()
    world.visits.stale.add(world.token)

    def ask(url: str) -> str:
        with (
            Client(url, world.token, patience=QUICK) as mine,
            mine.sessions.at(world.session).connect() as talk,
        ):
            return talk.ask("?", id="m").text

    async with serving(world.fleet) as url:
        assert await asyncio.to_thread(ask, url) == world.there.reply_to("m")


@pytest.mark.parametrize(
    "key", ["dev", "", "a.b.c", "fl_k.1.é", "a.eyJzdWIiOjF9.c", "a.W10.c", "a.b", "..", "a.####.c"]
)
def test_what_is_no_token_is_a_key(key: str) -> None:
    assert visit_of(key) is None


@pytest.mark.parametrize("key", ["dev\n", "schlüssel", "a\x00b"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(Refused) as refused:
        AsyncClient(key=key)
    assert refused.value.field == "key" and key not in str(refused.value)
