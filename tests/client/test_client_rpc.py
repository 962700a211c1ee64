"""gRPC comes back by the same mechanism, with the same outcome."""

from __future__ import annotations

from contextlib import aclosing

import grpc
import pytest

from flotilla.client import Closed, Completed, Event, Patience
from flotilla.client.rpc import RpcClient
from flotilla.core.errors import Unauthenticated, Unavailable
from tests.client.rpc_server import serving_rpc
from tests.client.server import Mischief, SmallFleet
from tests.client.test_client_resuming import QUICK, durable, shown


@pytest.mark.parametrize("seed", range(8))
async def test_over_grpc_a_message_is_taken_once_and_nothing_is_missed(seed: int) -> None:
    fleet = SmallFleet(Mischief(seed, shed=0.15, cut=0.1, again=0.2, lose=0.1))
    async with serving_rpc(fleet) as address, RpcClient(address, patience=QUICK) as mine:
        session = await mine.sessions.open("bank")
        assert (await session.ask("?", id="m1")).text == fleet.sessions[session.id].reply_to("m1")
        there, events = fleet.sessions[session.id], list[Event]()
        there.post("m2", "?")
        async with aclosing(session.follow()) as following:
            async for event in following:
                events.append(event)
                if isinstance(event, Completed) and event.turn == "t_m2":
                    there.close()
        assert isinstance(events[-1], Closed) and list(fleet.sessions) == [session.id]
        assert there.messages == ["m1", "m2"]
        assert durable(events) == list(range(1, len(there.record) + 1))
        assert shown(events, "t_m2") == there.reply_to("m2")
        assert [event.seq for event in await session.events()] == durable(events)


async def test_over_grpc_errors_are_the_fleets_own() -> None:
    fleet = SmallFleet()
    async with serving_rpc(fleet) as address, RpcClient(address, "wrong", patience=QUICK) as mine:
        with pytest.raises(Unauthenticated):
            await mine.sessions.open()
        with pytest.raises(Unauthenticated):
            await mine.sessions.at(fleet.open()).ask("?")


async def test_over_grpc_a_fleet_that_stays_away_is_given_up_on() -> None:
    async with serving_rpc(SmallFleet()) as address:
        pass
    patience = Patience(first_s=0.001, longest_s=0.001, tries_max=2)
    async with RpcClient(address, patience=patience) as mine:
        with pytest.raises(Unavailable) as gone:
            await mine.sessions.open()
        assert address in gone.value.detail and gone.value.next


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (grpc.StatusCode.CANCELLED, "Stream removed (RST_STREAM (Received RST_STREAM with error code 8))"),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
    ],
)
async def test_over_grpc_a_stream_that_a_proxy_resets_goes_on(code: grpc.StatusCode, message: str) -> None:
    fleet = SmallFleet(words=30)
    fleet.mischief.reset = (code, message)
    async with serving_rpc(fleet) as address, RpcClient(address, patience=QUICK) as mine:
        session = await mine.sessions.open()
        assert (await session.ask("?", id="m")).text == fleet.sessions[session.id].reply_to("m")
    assert fleet.mischief.reset is None and fleet.places, "it was cut and went on from its place"
