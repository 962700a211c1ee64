"""One link between two processes carries many conversations.

A call opens a stream on the link and gets items back until the stream ends; asking is a call that
takes one item. Frames are gathered: what is sent in one turn of the event loop leaves in one
write. Each stream has a window, so a slow reader slows its own stream and nobody else's.

Ray schedules and restarts the processes at both ends; the bytes go over a socket that they open,
because a Ray actor call costs twenty times as much and more (docs/decisions/0001).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator

import msgspec

from actors.listener import Handler, Listener
from actors.wire import Frames, Op, check_size
from flotilla.core.errors import FlotillaError, Overloaded, Problem, Unavailable, error_of
from flotilla.core.limits import LIMITS

__all__ = ["Handler", "Link", "Links", "Listener", "connect"]

_CREDIT_EVERY = LIMITS.link_window_items // 4


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


class Link(Frames):
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
        content = method.encode() + b"\0" + body
        check_size(content)
        self._last += 1
        call = self._calls[self._last] = _Call()
        self.send(Op.OPEN, self._last, content)
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


class Links:
    """The links of one process, by address: made when first needed, made again when lost."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._links: dict[str, Link] = {}
        self._opening: dict[str, asyncio.Lock] = {}

    def known(self, address: str) -> Link | None:
        return self._links.get(address)

    def drop(self, address: str) -> None:
        """Breaks the link to an address where nobody is any more: what waits on it is told."""
        if link := self._links.pop(address, None):
            link.abort()

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
