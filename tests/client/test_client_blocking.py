"""The synchronous client: the same calls, from a thread that has no loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from flotilla.client import Client, Completed, Delta
from flotilla.core.errors import NotFound, Refused
from tests.client.server import Mischief, SmallFleet, serving
from tests.client.test_client_resuming import LIMITS, QUICK

T = TypeVar("T")


async def against(fleet: SmallFleet, work: Callable[[Client], T]) -> T:
    """What `work` makes of a client of `fleet`, in a thread of its own."""

    def there(url: str) -> T:
        with Client(url, patience=QUICK, limits=LIMITS) as client:
            return work(client)

    async with serving(fleet) as url:
        return await asyncio.to_thread(there, url)


async def test_it_talks_as_the_other_does() -> None:
    fleet = SmallFleet(Mischief(5, shed=0.1, cut=0.1, again=0.1))

    def talk(client: Client) -> list[str]:
        session = client.sessions.open("bank")
        texts = [session.ask("?", id="m1").text]
        texts.append("".join(event.text for event in session.send("?", id="m2") if isinstance(event, Delta)))
        with session.connect() as socket:
            texts.append(socket.ask("?", id="m3").text)
            socket.say("?", id="m4")
            ends = (event for event in socket if isinstance(event, Completed))
            texts.append(next(ends).said.text)
        assert [event.seq for event in client.sessions.at(session.id).events()] == list(range(1, 14))
        return texts

    texts = await against(fleet, talk)
    (session,) = fleet.sessions.values()
    assert texts == [session.reply_to(f"m{n}") for n in range(1, 5)]


async def test_errors_come_through() -> None:
    def wrong(client: Client) -> None:
        client.call("GET", "/v1/nothing")

    with pytest.raises(NotFound):
        await against(SmallFleet(), wrong)


async def test_a_stream_that_is_left_early_is_closed() -> None:
    def leave(client: Client) -> int:
        for event in client.sessions.open().follow():
            return event.seq
        return 0

    assert await against(SmallFleet(), leave) == 1


async def test_a_closed_client_says_so_and_leaves_no_thread() -> None:
    before = threading.active_count()
    client = Client("http://127.0.0.1:9")
    client.close()
    assert threading.active_count() == before
    with pytest.raises(Refused):
        client.call("GET", "/healthz")


def test_methods_are_documented_once() -> None:
    from flotilla.client import blocking, sessions

    assert blocking.Session.interrupt.__doc__ == sessions.Session.interrupt.__doc__
