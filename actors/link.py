"""One link between two processes carries many conversations.

A call opens a stream on the link and gets items back until the stream ends; asking is a call that
takes one item. Frames are gathered: what is sent in one turn of the event loop leaves in one
write. Each stream has a window, so a slow reader slows its own stream and nobody else's.

Ray schedules and restarts the processes at both ends; the bytes go over a socket that they open,
because a Ray actor call costs forty times as much (docs/decisions/0001).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import struct
from collections import deque
from collections.abc import AsyncGenerator, Callable
from enum import IntEnum
from typing import cast

import msgspec

from flotilla.core.errors import FlotillaError, Overloaded, Problem, Unavailable, error_of
from flotilla.core.limits import LIMITS

Handler = Callable[[str, bytes], AsyncGenerator[bytes]]
"""Answers a call: the method's name and its body in, items out."""

_HEADER = struct.Struct(">IBI")  # length of what follows the header, op, stream
_READ_AT_MOST = 1 << 18
_CREDIT_EVERY = LIMITS.link_window_items // 4


class Op(IntEnum):
    HELLO = 0
    OPEN = 1
    ITEM = 2
    END = 3
    ERROR = 4
    CANCEL = 5
    CREDIT = 6


class _Frames(asyncio.Protocol):
    """Cuts the byte stream into frames, and gathers frames into writes."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of another class with the same methods.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        if not self.closed.done():
            self.closed.set_result(None)
        self.on_lost()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def writable(self) -> None:
        if not self._writable.is_set():
            await self._writable.wait()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        at, end = 0, len(self._buffer)
        while end - at >= _HEADER.size:
            length, op, stream = _HEADER.unpack_from(self._buffer, at)
            if length > LIMITS.link_frame_bytes_max:
                return self.abort()
            if end - at < _HEADER.size + length:
                break
            body = bytes(self._buffer[at + _HEADER.size : at + _HEADER.size + length])
            at += _HEADER.size + length
            self.on_frame(Op(op), stream, body)
        del self._buffer[:at]
        return None

    def send(self, op: Op, stream: int, body: bytes = b"") -> None:
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(_HEADER.pack(len(body), op, stream) + body)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def on_frame(self, op: Op, stream: int, body: bytes) -> None:
        raise NotImplementedError

    def on_lost(self) -> None:
        raise NotImplementedError


# -- the calling end


class _Call:
    """One stream, as its caller sees it."""

    def __init__(self) -> None:
        self.items: deque[bytes] = deque()
        self.arrived = asyncio.Event()
        self.ended = False
        self.error: FlotillaError | None = None

    def put(self, item: bytes) -> None:
        self.items.append(item)
        self.arrived.set()

    def end(self, error: FlotillaError | None = None) -> None:
        self.ended, self.error = True, error
        self.arrived.set()


class Link(_Frames):
    """The calling end of a link. Make one with `connect`."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self._calls: dict[int, _Call] = {}
        self._last = 0

    def __repr__(self) -> str:
        return f"<Link to {self.address}: {len(self._calls)} calls, {'lost' if self.lost else 'up'}>"

    @property
    def lost(self) -> bool:
        return self.closed.done()

    async def ask(self, method: str, body: bytes, *, timeout_s: float = LIMITS.ask_timeout_s) -> bytes:
        """The first item that the other end answers with. Raises what the other end raised,
        `Unavailable` if the link breaks or the time is up."""
        try:
            async with asyncio.timeout(timeout_s):
                async with contextlib.aclosing(self.call(method, body)) as items:
                    async for item in items:
                        return item
        except TimeoutError:
            raise Unavailable(
                f"{self.address} did not answer {method!r} in {timeout_s:g} s.", retry_after_s=1.0
            ) from None
        raise Unavailable(f"{self.address} ended {method!r} without an answer.", retry_after_s=1.0)

    async def call(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        """Items until the other end is done. Closing the iterator cancels the work there."""
        stream, call = self._open(method, body)
        taken = 0
        try:
            while True:
                while call.items:
                    yield call.items.popleft()
                    taken += 1
                    if taken % _CREDIT_EVERY == 0:
                        self.send(Op.CREDIT, stream, _CREDIT_EVERY.to_bytes(4, "big"))
                if call.error is not None:
                    raise call.error
                if call.ended:
                    return
                call.arrived.clear()
                await call.arrived.wait()
        finally:
            del self._calls[stream]
            if not call.ended:
                self.send(Op.CANCEL, stream)

    def _open(self, method: str, body: bytes) -> tuple[int, _Call]:
        if self.lost:
            raise Unavailable(f"The link to {self.address} is down.", retry_after_s=0.5)
        if len(self._calls) >= LIMITS.link_calls_max:
            raise Overloaded(f"{len(self._calls)} calls are open to {self.address}.", retry_after_s=1.0)
        self._last += 1
        call = self._calls[self._last] = _Call()
        self.send(Op.OPEN, self._last, method.encode() + b"\0" + body)
        return self._last, call

    def on_frame(self, op: Op, stream: int, body: bytes) -> None:
        call = self._calls.get(stream)
        if call is None:  # cancelled here while its items were on the way
            return
        if op is Op.ITEM:
            call.put(body)
        elif op is Op.END:
            call.end()
        elif op is Op.ERROR:
            call.end(error_of(msgspec.json.decode(body, type=Problem)))

    def on_lost(self) -> None:
        for call in self._calls.values():
            call.end(Unavailable(f"The link to {self.address} broke.", retry_after_s=0.5))

    async def aclose(self) -> None:
        self.abort()
        await self.closed


async def connect(address: str, token: str, *, timeout_s: float = 2.0) -> Link:
    """A link to the process that listens at `address` (HOST:PORT)."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            _, link = await loop.create_connection(lambda: Link(address), host, int(port))
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"Nothing answers at {address} ({error}).", retry_after_s=0.5) from None
    link.send(Op.HELLO, 0, token.encode())
    return link


# -- the answering end


class _Work:
    """One stream, as its handler sees it: how many items may still be sent."""

    def __init__(self) -> None:
        self.credit = LIMITS.link_window_items
        self.more = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def grant(self, items: int) -> None:
        self.credit += items
        self.more.set()

    async def spend(self) -> None:
        while self.credit == 0:
            self.more.clear()
            await self.more.wait()
        self.credit -= 1


class _Answering(_Frames):
    def __init__(self, handler: Handler, token: str, peers: set[_Answering]) -> None:
        super().__init__()
        self._handler = handler
        self._token = token
        self._trusted = False
        self._work: dict[int, _Work] = {}
        self._peers = peers
        peers.add(self)

    def on_frame(self, op: Op, stream: int, body: bytes) -> None:
        if not self._trusted:
            self._trusted = op is Op.HELLO and hmac.compare_digest(body, self._token.encode())
            return None if self._trusted else self.abort()
        if op is Op.OPEN:
            work = self._work[stream] = _Work()
            work.task = asyncio.get_running_loop().create_task(self._run(stream, work, body))
        elif work := self._work.get(stream):
            if op is Op.CREDIT:
                work.grant(int.from_bytes(body, "big"))
            elif op is Op.CANCEL and work.task is not None:
                work.task.cancel()
        return None

    async def _run(self, stream: int, work: _Work, body: bytes) -> None:
        method, _, payload = body.partition(b"\0")
        try:
            items = self._handler(method.decode(), payload)
            async with contextlib.aclosing(items):
                async for item in items:
                    await work.spend()
                    await self.writable()
                    self.send(Op.ITEM, stream, item)
            self.send(Op.END, stream)
        except FlotillaError as error:
            self.send(Op.ERROR, stream, msgspec.json.encode(error.problem()))
        except Exception as error:
            problem = FlotillaError(f"{type(error).__name__} in {method.decode()!r}.").problem()
            self.send(Op.ERROR, stream, msgspec.json.encode(problem))
            raise
        finally:
            self._work.pop(stream, None)

    def on_lost(self) -> None:
        self._peers.discard(self)
        for work in self._work.values():
            if work.task is not None:
                work.task.cancel()


class Listener:
    """Answers links with `handler`."""

    def __init__(self, handler: Handler, token: str) -> None:
        self._handler = handler
        self._token = token
        self._peers: set[_Answering] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listens; returns HOST:PORT."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Answering(self._handler, self._token, self._peers), host, port
        )
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        for peer in list(self._peers):
            peer.abort()


class Links:
    """The links of one process, by address: made when first needed, made again when lost."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._links: dict[str, Link] = {}
        self._opening: dict[str, asyncio.Lock] = {}

    def known(self, address: str) -> Link | None:
        return self._links.get(address)

    async def to(self, address: str) -> Link:
        link = self._links.get(address)
        if link is not None and not link.lost:
            return link
        async with self._opening.setdefault(address, asyncio.Lock()):
            link = self._links.get(address)
            if link is None or link.lost:
                link = self._links[address] = await connect(address, self._token)
        return link

    async def aclose(self) -> None:
        for link in self._links.values():
            await link.aclose()
