"""Server-sent events as OpenAI's clients read them, for as long as the client is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from flotilla.core.errors import FlotillaError
from flotilla.core.limits import LIMITS
from serve.openai_errors import body_of

OPEN_AFTER_S = 5.0
DONE = b"data: [DONE]\n\n"
_QUIET = b": still at it\n\n"

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode


def sse(data: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % _encode(data)


async def begun(items: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """`items`, once the first is there, so that what is refused is refused with a status. After
    `OPEN_AFTER_S` seconds it goes on without: a client must not take a long thought for a dead server."""
    first: asyncio.Future[T] = asyncio.ensure_future(anext(items))
    try:
        done, _ = await asyncio.wait({first}, timeout=OPEN_AFTER_S)
        if done:
            first.result()
    except BaseException:
        await _end(first, items)
        raise
    return _chained(first, items)


async def _chained(first: asyncio.Future[T], items: AsyncGenerator[T]) -> AsyncGenerator[T]:
    try:
        yield await first
        async for item in items:
            yield item
    finally:
        await _end(first, items)


async def _end(first: asyncio.Future[T], items: AsyncGenerator[T]) -> None:
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await items.aclose()


async def with_errors(events: AsyncGenerator[bytes], log: Any) -> AsyncGenerator[bytes]:
    """An error in the middle of a stream is its last event: the clients raise it."""
    try:
        async with aclosing(events):
            async for event in events:
                yield event
    except FlotillaError as error:
        yield sse(body_of(error))
    except Exception as error:
        log.error("stream.broke", exc_info=error)
        yield sse(body_of(FlotillaError("The reply could not be made.", next="Try again.")))


class EventStream(StreamingResponse):
    """Closes `events` as soon as the client hangs up, whatever they wait for; and says something now and then
    while they are quiet."""

    def __init__(self, events: AsyncGenerator[bytes], headers: Mapping[str, str]) -> None:
        quiet = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers={**quiet, **headers})
        self._events = events
        self._said_at = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def saying(message: Message) -> None:
            self._said_at = time.monotonic()
            await send(message)

        writing = asyncio.ensure_future(self.stream_response(saying))
        others = [
            asyncio.ensure_future(self.listen_for_disconnect(receive)),
            asyncio.ensure_future(self._keep_open(saying)),
        ]
        try:
            await asyncio.wait({writing, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, *others):
                task.cancel()
            (wrote, *_) = await asyncio.gather(writing, *others, return_exceptions=True)
            await self._events.aclose()
        if isinstance(wrote, Exception) and not isinstance(wrote, OSError | ClientDisconnect):
            raise wrote

    async def _keep_open(self, send: Send) -> None:
        every_s = LIMITS.keep_open_every_s
        while True:
            quiet_s = time.monotonic() - self._said_at
            await asyncio.sleep(max(0.0, every_s - quiet_s))
            if time.monotonic() - self._said_at >= every_s:
                await send({"type": "http.response.body", "body": _QUIET, "more_body": True})
