"""What a program may know of the connection under a talk, and of what was tried again."""

from __future__ import annotations

import asyncio

import pytest

from flotilla.client import Completed, Event, Patience
from flotilla.client.resuming import Missing
from flotilla.client.rpc import RpcClient
from flotilla.core.errors import FlotillaError, Overloaded, Unavailable
from tests.client.rpc_server import serving_rpc
from tests.client.server import Mischief, SmallFleet, serving
from tests.client.test_client_resuming import QUICK, client, durable, shown


async def test_a_talk_is_ready_when_its_connection_stands() -> None:
    fleet = SmallFleet()
    async with serving(fleet) as url, client(url) as mine:
        session = await mine.sessions.open()
        talk = session.connect(session.seq)
        assert not talk.connected
        with pytest.raises(Unavailable):
            await talk.ping()
        await talk.ready()
        assert talk.connected and fleet.places == ["1"]
        await talk.ping()
        await talk.ready()  # still
        assert (await talk.ask("?", id="m")).text == fleet.sessions[session.id].reply_to("m")
        await talk.aclose()
        assert not talk.connected


async def test_a_talk_that_can_not_be_had_says_so_to_who_waits_and_to_who_reads() -> None:
    async with serving(SmallFleet()) as url:
        pass
    async with client(url, patience=Patience(first_s=0.001, tries_max=2)) as mine:
        talk = mine.sessions.at("s_1").connect()
        with pytest.raises(Unavailable):
            await talk.ready()
        with pytest.raises(Unavailable):
            await anext(talk)
        await talk.aclose()


async def test_another_connection_goes_on_where_the_last_was_let_go() -> None:
    fleet, events = SmallFleet(words=30, step_s=0.001), list[Event]()
    async with serving(fleet) as url, client(url) as mine:
        session = await mine.sessions.open()
        async with session.connect() as talk:
            await talk.say("?", id="m")
            async for event in talk:
                events.append(event)
                if event.seq == 3 and len(fleet.places) == 1:
                    talk.reconnect()
                    assert not talk.connected
                    await talk.say("And?", id="m2")  # waits for the next connection
                if isinstance(event, Completed) and event.turn == "t_m2":
                    break
            assert talk.connected
        there = fleet.sessions[session.id]
        assert len(fleet.places) == 2
        assert durable(events) == list(range(1, len(there.record) + 1))
        assert [shown(events, f"t_{id}") for id in ("m", "m2")] == [there.reply_to(id) for id in ("m", "m2")]


async def test_a_ping_of_a_connection_that_breaks_is_not_answered() -> None:
    fleet = SmallFleet()
    async with serving(fleet) as url, client(url) as mine:
        session = await mine.sessions.open()
        async with session.connect() as talk:
            await talk.ready()
            ping = asyncio.create_task(talk.ping())
            await asyncio.sleep(0)  # it has been sent
            talk.reconnect()
            with pytest.raises(Unavailable):
                await ping


async def test_each_error_behind_which_it_is_tried_again_is_told() -> None:
    told = list[FlotillaError]()
    fleet = SmallFleet(Mischief(3, shed=0.3, cut=0.1, lose=0.2), words=30)
    async with serving(fleet) as url, client(url, on_retry=told.append) as mine:
        session = await mine.sessions.open()
        for n in range(4):
            await session.ask("?", id=f"m{n}")
        async with session.connect() as talk:
            for n in range(4, 8):
                await talk.ask("?", id=f"m{n}")
    assert {Overloaded, Missing, Unavailable} <= {type(error) for error in told}
    assert all(error.retry_after_s for error in told if isinstance(error, Overloaded))


async def test_and_over_grpc() -> None:
    told = list[FlotillaError]()
    fleet = SmallFleet(Mischief(3, shed=0.3))
    async with (
        serving_rpc(fleet) as address,
        RpcClient(address, patience=QUICK, on_retry=told.append) as mine,
    ):
        for _ in range(8):
            await mine.sessions.open()
    assert told and {type(error) for error in told} == {Overloaded}


async def test_what_is_not_tried_again_is_raised_and_not_told() -> None:
    told, fleet = list[FlotillaError](), SmallFleet(Mischief(shed=1.0))
    async with (
        serving(fleet) as url,
        client(url, patience=Patience(first_s=0.001, tries_max=2), on_retry=told.append) as mine,
    ):
        with pytest.raises(Overloaded):
            await mine.sessions.open()
    assert len(told) == 1 and len(fleet.calls) == 2
