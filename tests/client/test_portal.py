"""The synchronous client's way to its loop: interrupted, shared by threads, closed in the middle, dropped."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import warnings
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType

import pytest

from flotilla.client import Client
from flotilla.client.portal import Portal
from flotilla.core.errors import Refused
from tests.client.server import SmallFleet
from tests.client.test_client_blocking import against


@contextmanager
def portal() -> Generator[Portal]:
    """With nothing left behind: no thread, no task that was forgotten, nothing that nobody waited for."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = Portal()
        try:
            yield made
        finally:
            made.close()
            gc.collect()
    assert "flotilla-client" not in {thread.name for thread in threading.enumerate()}


async def for_ever(begun: threading.Event, ended: list[str]) -> None:
    begun.set()
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)  # as closing a connection does
        ended.append("it has ended")


def test_closing_ends_what_other_threads_wait_for() -> None:
    begun, ended = threading.Event(), list[str]()
    with ThreadPoolExecutor(1) as others, portal() as made:
        waiting = others.submit(lambda: made.run(for_ever(begun, ended)))
        begun.wait(5)
        made.close()
        with pytest.raises(Refused, match="closed"):
            waiting.result(5)
    assert ended == ["it has ended"]


def test_it_closes_once_however_many_close_it() -> None:
    with ThreadPoolExecutor(8) as others, portal() as made:
        for closing in [others.submit(made.close) for _ in range(8)]:
            closing.result(5)
        with pytest.raises(Refused, match="closed"):
            made.run(asyncio.sleep(0))


async def counting(ended: list[str], interrupts: bool = False) -> AsyncGenerator[int]:
    try:
        for number in range(1_000):
            yield number
            if interrupts and number:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ended.append("closed")


def test_who_is_interrupted_while_a_stream_is_read_leaves_it_closed() -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before, ended = signal.signal(signal.SIGUSR1, interrupt), list[str]()
    try:
        with portal() as made:
            with pytest.raises(KeyboardInterrupt):
                for _ in made.each(counting(ended, interrupts=True)):
                    pass
            assert ended == ["closed"]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_stream_that_outlives_its_client_is_closed_with_it() -> None:
    ended = list[str]()
    with portal() as made:
        numbers = made.each(counting(ended))
        assert next(numbers) == 0
        made.close()
        assert ended == ["closed"]
        with pytest.raises(Refused, match="closed"):
            next(numbers)
        others = made.each(counting(ended))
        del others


def test_a_stream_that_is_dropped_in_the_loops_own_thread_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The collector of cycles runs where it likes."""
    trouble, ended = list[object](), list[str]()
    monkeypatch.setattr("sys.unraisablehook", trouble.append)
    with portal() as made:
        kept = [made.each(counting(ended))]
        assert next(kept[0]) == 0

        async def drop() -> None:
            kept.clear()

        made.run(drop())
        made.run(asyncio.sleep(0))
        made.close()
    assert not trouble and ended == ["closed"]


async def test_one_client_serves_many_threads() -> None:
    fleet = SmallFleet()

    def talk(client: Client) -> list[str]:
        def ask(n: int) -> str:
            return client.sessions.open().ask("?", id=f"m{n}").text

        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(ask, range(24)))

    texts = await against(fleet, talk)
    assert texts == [next(iter(fleet.sessions.values())).reply_to(f"m{n}") for n in range(24)]


async def test_a_talk_that_another_thread_closes_ends_for_its_reader() -> None:
    def read(client: Client) -> list[int]:
        with ThreadPoolExecutor(1) as others:
            talk = client.sessions.open().connect()
            begun = threading.Event()

            def listen() -> list[int]:
                return [event.seq for event in talk if not begun.set()]

            reader = others.submit(listen)
            begun.wait(5)
            talk.close()
            return reader.result(5)

    assert await against(SmallFleet(), read) == [1]


async def test_what_is_left_open_ends_with_its_client_and_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = SmallFleet()

    def leave(client: Client) -> object:
        session = client.sessions.open()
        talk, events, sent = session.connect(), session.follow(), session.send("?")
        first = next(talk), next(events), next(sent)
        client.close()
        return talk, events, sent, first

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        left = await against(fleet, leave)
        async with asyncio.timeout(5):
            while fleet.visits.open:
                await asyncio.sleep(0.001)
        del left
        gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


async def test_a_client_is_closed_as_often_as_one_likes() -> None:
    def close(client: Client) -> None:
        client.close()
        client.close()

    await against(SmallFleet(), close)  # and once more, at the end of its context
