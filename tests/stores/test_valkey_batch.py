"""Scripts that share round trips, when a round trip goes wrong: everybody hears, and hears the truth."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis import exceptions

from flotilla.core.errors import FlotillaError, Unavailable
from flotilla.stores.valkey import translated
from flotilla.stores.valkey_batch import Batch, Script

ONE, TWO = Script("return 1"), Script("return 2")


class Server:
    """Knows the scripts that it was given, and breaks when it is told to."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.done: list[str] = []
        self.breaks: list[Exception] = []
        self.loads: list[Exception] = []

    def pipeline(self, *, transaction: bool) -> Pipeline:
        return Pipeline(self)

    async def script_load(self, text: str) -> None:
        if self.loads:
            raise self.loads.pop(0)
        self.known.add(Script(text).sha)


class Pipeline:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._asked: list[tuple[str, str]] = []

    def execute_command(self, _: str, sha: str, keys: int, key: str, *words: Any) -> None:
        self._asked.append((sha, key))

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        await asyncio.sleep(0)
        if self._server.breaks:
            raise self._server.breaks.pop(0)
        return [self._do(sha, key) for sha, key in self._asked]

    def _do(self, sha: str, key: str) -> Any:
        if sha not in self._server.known:
            return exceptions.NoScriptError("NOSCRIPT")
        self._server.done.append(key)
        return key


def made() -> tuple[Server, Batch]:
    server = Server()
    client: Any = server
    return server, Batch(client, translated)


async def all_of(batch: Batch, *asked: tuple[Script, str]) -> list[Any]:
    async with asyncio.timeout(5):
        runs = (batch.run(script, key) for script, key in asked)
        return await asyncio.gather(*runs, return_exceptions=True)


async def test_a_script_that_is_unknown_in_the_middle_is_loaded_and_done_once() -> None:
    server, batch = made()
    server.known.add(ONE.sha)
    assert await all_of(batch, (ONE, "a"), (TWO, "b"), (ONE, "c")) == ["a", "b", "c"]
    assert sorted(server.done) == ["a", "b", "c"]


async def test_what_was_done_stays_done_if_a_script_can_not_be_loaded() -> None:
    server, batch = made()
    server.known.add(ONE.sha)
    server.loads = [exceptions.ConnectionError("gone")]
    a, b = await all_of(batch, (ONE, "a"), (TWO, "b"))
    assert a == "a" and isinstance(b, Unavailable)


@pytest.mark.parametrize(
    "error",
    [exceptions.DataError("None is no word"), RuntimeError("a bug"), exceptions.ConnectionError("gone")],
)
async def test_nobody_waits_for_ever_whatever_breaks(error: Exception) -> None:
    server, batch = made()
    server.known.add(ONE.sha)
    server.breaks = [error]
    results = await all_of(batch, (ONE, "a"), (ONE, "b"))
    assert all(isinstance(result, FlotillaError) for result in results)
    assert await all_of(batch, (ONE, "c")) == ["c"]


async def test_a_caller_that_left_keeps_nobody_from_an_answer() -> None:
    server, batch = made()
    server.known.add(ONE.sha)
    left = asyncio.create_task(batch.run(ONE, "a"))
    staying = asyncio.create_task(batch.run(ONE, "b"))
    await asyncio.sleep(0)
    left.cancel()
    assert await staying == "b"


@pytest.mark.parametrize("word", ["READONLY You can't write against a read only replica.", "LOADING", "OOM"])
async def test_a_server_that_does_not_write_now_may_later(word: str) -> None:
    server, batch = made()
    server.known.add(ONE.sha)
    server.breaks = [exceptions.ResponseError(word)]
    (result,) = await all_of(batch, (ONE, "a"))
    assert isinstance(result, Unavailable) and result.retry_after_s
