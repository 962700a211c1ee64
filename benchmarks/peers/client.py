"""The client of all peers: `aiohttp`, on uvloop, for HTTP with Server-Sent Events and for WebSockets alike, so that
what it costs is the same for everybody. Each peer's own file says which of the two is its natural protocol
and what its events look like.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp
import msgspec

from benchmarks.peers.script import TOKENS

TIMEOUT_S = 120.0

Heard = Callable[[int], None]
"""So many tokens have just come."""


class Broken(Exception):
    """A turn that was refused, or didn't bring the whole reply."""


class Busy(Exception):
    """A turn that was turned away, to be asked again after `retry_after_s`."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"Turned away for {retry_after_s:g} s.")
        self.retry_after_s = retry_after_s


class Said(msgspec.Struct, frozen=True):
    """What an event says: more of the reply, or (`whole`) all of it over again; at its end, the engine's own time
    to the first token, if told."""

    text: str = ""
    whole: bool = False
    engine_ms: float = 0.0
    ended: bool = False


NOTHING = Said()

Read = Callable[[bytes], Said]


class Turn(msgspec.Struct, frozen=True):
    """Seconds from the question; `engine_s` is what of `first_s` was the engine's."""

    first_s: float
    total_s: float
    engine_s: float


class Conversation(Protocol):
    """One customer's, open until it is closed; its pace was chosen when it was opened."""

    async def turn(self, heard: Heard) -> Turn:
        """Asks, and hears the reply out. Raises `Busy` and `Broken`."""
        ...

    async def close(self) -> None: ...


@asynccontextmanager
async def client() -> AsyncGenerator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        yield http


async def check(answer: aiohttp.ClientResponse) -> None:
    """Raises `Busy` for a refusal that says when to come back, and `Broken` for any other."""
    if answer.status in (429, 503) and "Retry-After" in answer.headers:
        raise Busy(float(answer.headers["Retry-After"]))
    if answer.status >= 300:
        raise Broken(f"{answer.status}: {(await answer.text())[:300]}")


class _Stopwatch:
    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._began = time.perf_counter()
        self._first_s = self._engine_s = 0.0
        self._tokens = 0

    def hear(self, said: Said) -> None:
        self._engine_s = said.engine_ms / 1000 or self._engine_s
        if tokens := len(said.text.split()) - (self._tokens if said.whole else 0):
            self._first_s = self._first_s or time.perf_counter() - self._began
            self._tokens += tokens
            self._heard(tokens)

    def stop(self, last: bytes) -> Turn:
        """Raises `Broken`, with the `last` event, unless the whole reply has come."""
        if self._tokens != len(TOKENS):
            raise Broken(f"{self._tokens} tokens came instead of {len(TOKENS)}, at last {last[:300]!r}.")
        return Turn(self._first_s, time.perf_counter() - self._began, self._engine_s)


class Streamed:
    """A turn is a POST, whose answer streams. Events end with an empty line."""

    def __init__(self, http: aiohttp.ClientSession, url: str, body: Any, read: Read, **headers: str) -> None:
        self._http, self._url, self._read = http, url, read
        self._body = body if callable(body) else lambda: body
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream", **headers}

    async def turn(self, heard: Heard) -> Turn:
        watch = _Stopwatch(heard)
        content = msgspec.json.encode(self._body())
        async with self._http.post(self._url, data=content, headers=self._headers) as answer:
            await check(answer)
            last = rest = b""
            async for some in answer.content.iter_any():
                *events, rest = (rest + some.replace(b"\r\n", b"\n")).split(b"\n\n")
                for last in events:
                    watch.hear(self._read(last))
        return watch.stop(last)

    async def close(self) -> None:
        return


class Socket:
    """A turn is a frame, answered with frames until one says that the reply has ended."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, message: Callable[[], Any], read: Read
    ) -> None:
        self._socket, self._message, self._read = socket, message, read

    async def turn(self, heard: Heard) -> Turn:
        watch = _Stopwatch(heard)
        await self._socket.send_str(msgspec.json.encode(self._message()).decode())
        async for frame in self._socket:
            text = frame.data.encode()
            said = self._read(text)
            watch.hear(said)
            if said.ended:
                return watch.stop(text)
        raise Broken(f"The socket closed with {self._socket.close_code}.")

    async def close(self) -> None:
        await self._socket.close()


def data_of(event: bytes) -> bytes:
    """The `data:` line of an event; empty if it has none."""
    at = event.find(b"data: ")
    return event[at + 6 :].partition(b"\n")[0] if at >= 0 else b""


_decoder = msgspec.json.Decoder(Said)


def read_frame(frame: bytes) -> Said:
    """Of peers that speak in `Said`."""
    return _decoder.decode(frame)


def read_data(event: bytes) -> Said:
    """The same as a Server-Sent Event."""
    data = data_of(event)
    return _decoder.decode(data) if data else NOTHING
