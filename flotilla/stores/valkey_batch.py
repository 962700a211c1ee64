"""Scripts of many callers that share round trips to Valkey."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import redis.asyncio as redis
from redis import exceptions

from flotilla.core.errors import Misconfigured, Overloaded, Unavailable

WAITING_MAX = 20_000

Translated = Callable[[], AbstractAsyncContextManager[None]]


class Script:
    """One key. Valkey knows it by its SHA-1; the client library's own scripts ask before every pipeline
    whether it does, which doubles the round trips."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode()).hexdigest()


class _Waiting(msgspec.Struct, frozen=True, eq=False):
    script: Script
    key: str
    words: tuple[Any, ...]
    done: asyncio.Future[Any]


class Batch:
    """What is asked for while a round trip is under way makes up the next one."""

    def __init__(self, client: redis.Redis, translated: Translated) -> None:
        self._client = client
        self._translated = translated
        self._waiting: list[_Waiting] = []
        self._flusher: asyncio.Task[None] | None = None

    async def run(self, script: Script, key: str, *words: Any) -> Any:
        """Raises `Overloaded`, `Unavailable`, `Misconfigured`."""
        if len(self._waiting) >= WAITING_MAX:
            raise Overloaded(f"{WAITING_MAX} writes wait for Valkey.", retry_after_s=1.0)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(script, key, words, done))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return await done

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                async with self._translated():
                    results = await self._write(batch)
            except Exception as error:  # a bug too: those who wait would hear of nothing for ever
                results = [error] * len(batch)
            for waiting, result in zip(batch, results, strict=True):
                _settle(waiting.done, result)

    async def _write(self, batch: Sequence[_Waiting]) -> list[Any]:
        results = await self._send(batch)
        strange = {n for n, result in enumerate(results) if isinstance(result, exceptions.NoScriptError)}
        if strange:  # it was started anew, and those that it did not know have done nothing
            again = sorted(strange)
            for n, result in zip(again, await self._write_again([batch[n] for n in again]), strict=True):
                results[n] = result
        return results

    async def _write_again(self, batch: Sequence[_Waiting]) -> list[Any]:
        """What goes wrong here is nothing to those whose script was known: theirs is done."""
        try:
            async with self._translated():
                for script in {waiting.script for waiting in batch}:
                    await self._client.script_load(script.text)
                return await self._send(batch)
        except (Unavailable, Misconfigured) as error:
            return [error] * len(batch)

    async def _send(self, batch: Sequence[_Waiting]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for waiting in batch:
            pipeline.execute_command("EVALSHA", waiting.script.sha, 1, waiting.key, *waiting.words)
        return await pipeline.execute(raise_on_error=False)


def _settle(done: asyncio.Future[Any], result: Any) -> None:
    if done.done():
        return
    if isinstance(result, (Unavailable, Misconfigured)):
        done.set_exception(result)
    elif isinstance(result, Exception):
        done.set_exception(Unavailable(f"Redis refuses to write: {result}.", retry_after_s=5.0))
    else:
        done.set_result(result)
