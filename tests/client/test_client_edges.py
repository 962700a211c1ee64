"""What a careful user does all the same: closes twice, closes too soon, waits for long, drops a stream, reads twice."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from flotilla.client import AsyncClient, Client, ClientLimits, Event, Other, Patience, Talk
from flotilla.client.rpc import RpcClient
from flotilla.client.trying import Trying
from flotilla.core.errors import FlotillaError, Refused, Unavailable
from flotilla.rpc import v1_pb2 as pb
from tests.client.rpc_server import SmallDoor, serving_rpc
from tests.client.server import SmallFleet, serving
from tests.client.test_client_calls import asked
from tests.client.test_client_parts import Hands
from tests.client.test_client_resuming import client, durable
from tests.client.test_client_tokens import World

# -- patience


async def test_a_connection_that_stood_for_long_was_progress_however_quiet_it_was() -> None:
    hands, patience = Hands(), Patience(first_s=0.1, most_s=60.0)
    it = Trying(patience, hands, Random(1), dead_s=ClientLimits().dead_s)
    for _ in range(3):
        hands.time += 3600.0  # nobody said anything, and the gateway drained
        await it.come_back(Unavailable("gone"))
    hands.time += 50.0
    with pytest.raises(Unavailable):
        for _ in range(20):
            await it.come_back(Unavailable("gone"))


@pytest.mark.parametrize("wire", ["websocket", "sse", "grpc"])
async def test_a_quiet_stream_comes_back_however_long_it_was_quiet(wire: str) -> None:
    world = World()
    async with world.following(wire, key="dev") as events:
        assert durable([await anext(events)]) == [1]
        world.clock.turn(3600.0)
        world.visits.end("dev")  # cut; nobody says why
        world.visits.begin("dev")
        world.there.post("m", "?")
        assert durable([await anext(events)]) == [2]


# -- closed


@pytest.mark.parametrize("wire", ["websocket", "sse", "grpc"])
async def test_a_closed_client_says_so(wire: str) -> None:
    world = World()
    async with world.client(wire) as mine:
        session = mine.sessions.at(world.session)
        if wire != "websocket":
            await session.events()
        await mine.aclose()
        await mine.aclose()
        if wire == "websocket":
            async with session.connect() as talk:
                with pytest.raises(Refused, match="closed"):
                    await anext(talk)
        else:
            with pytest.raises(Refused, match="closed"):
                await session.events()
            with pytest.raises(Refused, match="closed"):
                await session.ask("?")


@pytest.mark.parametrize("wire", ["websocket", "sse", "grpc"])
async def test_closing_a_client_ends_what_is_read_from_it(wire: str) -> None:
    world, reading = World(), asyncio.Event()

    async def read() -> None:
        async for _ in events:
            reading.set()

    async with world.client(wire) as mine:
        session = mine.sessions.at(world.session)
        talk = session.connect() if wire == "websocket" else None
        events = talk or session.follow()
        reader = asyncio.create_task(read())
        await reading.wait()
        await mine.aclose()
        with pytest.raises(Refused, match="closed"):
            await asyncio.wait_for(reader, 5)
        if talk:
            await talk.aclose()


async def test_over_grpc_closing_a_client_ends_a_call_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC cancels it, and with it whoever waits: but nobody has cancelled that task."""
    asked_for = asyncio.Event()

    async def never(self: SmallDoor, request: Any, context: Any) -> Any:
        asked_for.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(SmallDoor, "ListEvents", never)
    world = World()
    async with world.client("grpc") as mine:
        asking = asyncio.create_task(mine.sessions.at(world.session).events())
        await asked_for.wait()
        await mine.aclose()
        with pytest.raises(Refused, match="closed"):
            await asking


async def test_a_talk_that_is_closed_ends_for_its_reader_and_takes_no_message() -> None:
    world, reading = World(), asyncio.Event()

    async def read(talk: Talk) -> str:
        async for _ in talk:
            reading.set()
        return "ended"

    async with world.client("websocket") as mine:
        talk = mine.sessions.at(world.session).connect()
        reader = asyncio.create_task(read(talk))
        await reading.wait()
        await talk.aclose()
        assert await asyncio.wait_for(reader, 5) == "ended"
        with pytest.raises(Refused, match="closed"):
            await talk.say("?")
        with pytest.raises(Refused, match="closed"):
            await talk.ready()


async def test_two_readers_of_one_talk_are_told() -> None:
    """Each would miss what the other takes, and wait for it for ever."""
    world = World()
    async with world.client("websocket") as mine, mine.sessions.at(world.session).connect(after=1) as talk:
        first = asyncio.create_task(anext(talk))
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="reads"):
            await anext(talk)
        world.there.post("m", "?")
        assert durable([await asyncio.wait_for(first, 5)]) == [2]
        assert (await talk.ask("?", id="m2")).text == world.there.reply_to("m2")


async def test_that_somebody_writes_is_told_now_and_then() -> None:
    world = World()
    async with world.client("websocket") as mine, mine.sessions.at(world.session).connect() as talk:
        await talk.typing()  # to nobody, without a connection
        await anext(talk)
        for _ in range(4):
            for _ in range(10):  # a key stroke each
                await talk.typing()
            world.clock.turn(ClientLimits().typing_every_s)
        await talk.ask("?")
        assert world.fleet.typing == 4
        for socket in mine._calls.sockets:
            socket.transport.abort()
        await talk.typing()  # the connection is broken, and nobody has noticed


# -- dropped


@pytest.mark.parametrize("wire", ["sse", "grpc"])
async def test_a_stream_that_is_dropped_is_closed(wire: str) -> None:
    world = World()
    async with world.client(wire) as mine:
        async for _ in mine.sessions.at(world.session).follow():
            break
        gc.collect()
        async with asyncio.timeout(5):
            while world.visits.open:
                await asyncio.sleep(0.001)


async def test_who_is_cancelled_while_a_message_is_sent_leaves_nothing_open() -> None:
    world = World()
    async with world.client("sse") as mine:
        session = mine.sessions.at(world.session)
        before = asyncio.all_tasks()
        asking = asyncio.create_task(session.ask("?"))
        while not world.there.posts:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with asyncio.timeout(5):
            while world.visits.open:
                await asyncio.sleep(0.001)
        assert not {task for task in asyncio.all_tasks() - before if "flotilla" in repr(task.get_coro())}


# -- what others say


async def test_over_grpc_what_keeps_the_line_open_is_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    told = SmallDoor._told  # pyright: ignore[reportPrivateUsage]

    async def quiet(self: SmallDoor, events: Any, context: Any) -> Any:
        async for event in told(self, events, context):
            yield pb.Event()
            yield event

    monkeypatch.setattr(SmallDoor, "_told", quiet)
    fleet, seen = SmallFleet(), list[Event]()
    async with serving_rpc(fleet) as address, RpcClient(address) as mine:
        session = mine.sessions.at(fleet.open())
        seen = [event async for event in session.send("?", id="m")]
    assert seen and not any(isinstance(event, Other) for event in seen)


async def test_a_proxy_that_sends_us_elsewhere_has_not_answered() -> None:
    async with asked((308, {"location": "https://elsewhere.example/"}, b"")) as (mine, script, _):
        with pytest.raises(FlotillaError, match="308"):
            await mine.sessions.open()
        assert len(script.heard) == 1


@pytest.mark.parametrize("url", ["http://", "http://host:port", "http://[::1", "host:8080", "ws://host"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    for kind in (AsyncClient, Client):
        with pytest.raises(Refused) as refused:
            kind(url)
        assert refused.value.field == "url"


async def test_a_path_that_names_another_host_is_not_sent_there() -> None:
    """The key would go with it."""
    elsewhere = SmallFleet()
    async with serving(SmallFleet()) as url, serving(elsewhere) as other, client(url) as mine:
        for path in (f"{other}/v1/sessions", "v1/sessions", ""):
            with pytest.raises(Refused) as refused:
                await mine.call("GET", path)
            assert refused.value.field == "path"
        with suppress(FlotillaError):
            await mine.call("GET", other.removeprefix("http:"))  # "//host": a path of ours
    assert not elsewhere.calls
