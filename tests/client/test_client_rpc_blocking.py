"""The synchronous client over gRPC: the same calls, from a thread that has no loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from flotilla.client import Delta
from flotilla.client.blocking_rpc import BlockingRpcClient, BlockingRpcSession
from flotilla.client.rpc import RpcSession
from flotilla.core.errors import Refused, Unauthenticated
from tests.client.rpc_server import serving_rpc
from tests.client.server import Mischief, SmallFleet
from tests.client.test_client_resuming import QUICK

T = TypeVar("T")


async def against(fleet: SmallFleet, work: Callable[[BlockingRpcClient], T], key: str = "dev") -> T:
    """What `work` makes of a client of `fleet`, in a thread of its own."""

    def there(address: str) -> T:
        with BlockingRpcClient(address, key, patience=QUICK) as client:
            return work(client)

    async with serving_rpc(fleet) as address:
        return await asyncio.to_thread(there, address)


async def test_over_grpc_it_talks_as_the_other_does() -> None:
    fleet = SmallFleet(Mischief(5, shed=0.1, cut=0.1, again=0.1))

    def talk(client: BlockingRpcClient) -> list[str]:
        session = client.sessions.open("bank")
        texts = [session.ask("?", id="m1").text]
        texts.append("".join(event.text for event in session.send("?", id="m2") if isinstance(event, Delta)))
        again = client.sessions.at(session.id)
        assert [event.seq for event in again.events()] == list(range(1, 8))
        for event in again.follow():
            assert event == again.events()[0]
            break  # left early
        return texts

    texts = await against(fleet, talk)
    (session,) = fleet.sessions.values()
    assert texts == [session.reply_to("m1"), session.reply_to("m2")]


async def test_over_grpc_errors_come_through() -> None:
    def wrong(client: BlockingRpcClient) -> None:
        client.sessions.open()

    with pytest.raises(Unauthenticated):
        await against(SmallFleet(), wrong, key="wrong")


async def test_over_grpc_a_stream_ends_with_the_client_that_another_thread_closes() -> None:
    fleet = SmallFleet()

    def read(client: BlockingRpcClient) -> None:
        events = client.sessions.open().follow()
        next(events)
        closing = threading.Thread(target=client.close)
        with pytest.raises(Refused, match="closed"):
            closing.start()
            next(events)
        closing.join()

    await against(fleet, read)


def test_over_grpc_a_client_that_can_not_be_made_leaves_no_thread() -> None:
    before = threading.active_count()
    with pytest.raises(Refused):
        BlockingRpcClient(key="schlüssel")
    assert threading.active_count() == before


def test_over_grpc_methods_are_those_of_the_other() -> None:
    public = {name for name in dir(RpcSession) if not name.startswith("_")}
    assert public <= set(dir(BlockingRpcSession))
