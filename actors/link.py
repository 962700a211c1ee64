"""One link between two processes carries many conversations.

A call opens a stream on the link and gets items back until the stream ends. To ask is one frame there
and one back, to tell is one frame there. What is sent arrives in the order in which it was sent. Frames
are gathered: what is sent in one turn of the event loop leaves in one write. Each stream has a window,
so a slow reader slows its own stream and nobody else's.

Ray schedules and restarts the processes at both ends; the bytes go over a socket that they open,
because a Ray actor call costs twenty times as much and more (docs/decisions/0001).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator

import msgspec

from actors.incoming import CREDIT_EVERY, Pulled, Sink, Stream, Tap
from actors.listener import Handler, Listener
from actors.reply import Asked, Reply
from actors.wire import Frames, Op, check_size, items_of
from flotilla.core.errors import FlotillaError, Overloaded, Problem, Unavailable, error_of
from flotilla.core.limits import LIMITS

__all__ = ["Asked", "Handler", "Link", "Links", "Listener", "Reply", "Unanswered", "connect"]

SWEEP_EVERY_S = 0.025  # at most: how late an ask may learn that its time is up
_decode_problem = msgspec.json.Decoder(Problem).decode


class Unanswered(Unavailable):
    """Nothing has come back in the time that was given."""


class Link(Frames):
    """The calling end of a link. Make one with `connect`. It never stops reading."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self._calls: dict[int, Stream] = {}
        self._asks: dict[int, tuple[asyncio.Future[bytes], float]] = {}  # and its deadline
        self._last = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep_at = math.inf
        self._swept_at = -math.inf

    def __repr__(self) -> str:
        state = "lost" if self.lost else "up"
        return f"<Link to {self.address}: {len(self._calls)} calls, {len(self._asks)} asks, {state}>"

    # -- one frame there

    def tell(self, method: str, body: bytes) -> None:
        """Sends without an answer, at most once. Raises `Unavailable` if the link is lost, `Overloaded` if
        too much waits to be sent; `await link.writable()` in between waits instead."""
        self.send(Op.TELL, 0, self._content(method, body))

    # -- one frame there and one back

    async def ask(self, method: str, body: bytes, *, timeout_s: float = LIMITS.ask_timeout_s) -> bytes:
        """What the other end answers with. Raises what the other end raised, `Unavailable` if the link
        breaks, `Unanswered` if the time is up. The other end hears of it when nobody waits any more."""
        stream = self._new_stream()
        self.send(Op.ASK, stream, self._content(method, body))
        answer: asyncio.Future[bytes] = self._loop.create_future()
        deadline = self._loop.time() + timeout_s
        self._asks[stream] = answer, deadline
        if deadline < self._sweep_at:
            self._sweep_from(deadline)
        try:
            return await answer
        except asyncio.CancelledError:
            if self._asks.pop(stream, None) is not None:
                self.send(Op.CANCEL, stream)
            raise
        except TimeoutError:
            raise Unanswered(
                f"{self.address} did not answer {method!r} in {timeout_s:g} s.", retry_after_s=1.0
            ) from None

    def _sweep_from(self, deadline: float) -> None:
        """One timer for all asks: each with its own would cost a quarter of the whole ask."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._sweep_at = max(deadline, self._swept_at + SWEEP_EVERY_S)
        self._sweeper = self._loop.call_at(self._sweep_at, self._sweep)

    def _sweep(self) -> None:
        """Tells those whose time is up, and is back when the next one's is."""
        now = self._swept_at = self._loop.time()
        self._sweeper, self._sweep_at = None, math.inf
        for stream in [stream for stream, (_, deadline) in self._asks.items() if deadline <= now]:
            answer, _ = self._asks.pop(stream)
            self.send(Op.CANCEL, stream)
            if not answer.done():
                answer.set_exception(TimeoutError())
        if self._asks:
            self._sweep_from(min(deadline for _, deadline in self._asks.values()))

    # -- a stream back

    async def call(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        """Items until the other end is done. Closing the iterator cancels the work there."""
        call = Pulled()
        stream = self._open(method, body, call)
        taken = 0
        try:
            while True:
                while call.items:
                    yield call.items.popleft()
                    taken += 1
                    if taken % CREDIT_EVERY == 0:
                        self.grant(stream, CREDIT_EVERY)
                if call.error is not None:
                    raise call.error
                if call.over:
                    return
                call.arrived.clear()
                await call.arrived.wait()
        finally:
            del self._calls[stream]
            if not call.over:
                self.send(Op.CANCEL, stream)

    def tap(self, method: str, body: bytes, sink: Sink) -> Tap:
        """A stream whose items are handed to `sink` as they come, and no task waits for them."""
        tap = Tap(self, self._last + 1, sink)
        self._open(method, body, tap)
        return tap

    def untap(self, stream: int) -> None:
        if self._calls.pop(stream, None) is not None:
            self.send(Op.CANCEL, stream)

    def grant(self, stream: int, items: int) -> None:
        self.send(Op.CREDIT, stream, items.to_bytes(4, "big"))

    def _open(self, method: str, body: bytes, call: Stream) -> int:
        stream = self._new_stream()
        self.send(Op.OPEN, stream, self._content(method, body))
        self._calls[stream] = call
        return stream

    # -- what may be sent

    def _new_stream(self) -> int:
        if len(self._calls) + len(self._asks) >= LIMITS.link_calls_max:
            raise Overloaded(f"{LIMITS.link_calls_max} calls are open to {self.address}.", retry_after_s=1.0)
        self._last += 1
        return self._last

    def _content(self, method: str, body: bytes) -> bytes:
        if self.lost:
            raise Unavailable(f"The link to {self.address} is down.", retry_after_s=0.5)
        content = method.encode() + b"\0" + body
        check_size(content)
        if self._full and self.unsent + len(content) > LIMITS.link_out_bytes_max:
            raise Overloaded(f"{self.unsent} bytes wait for {self.address} to read.", retry_after_s=1.0)
        return content

    # -- what comes back

    def on_frame(self, op: Op, stream: int, body: bytes) -> None:
        if op is Op.ANSWER:
            if (asked := self._asks.pop(stream, None)) and not asked[0].done():
                asked[0].set_result(body)
        elif op is Op.ERROR:
            self._on_error(stream, body)
        elif op is Op.ITEMS:
            self._on_items(stream, body)
        elif call := self._calls.get(stream):  # else it was cancelled here with items on the way
            self._on_item(op, stream, call, body)

    def _on_item(self, op: Op, stream: int, call: Stream, body: bytes) -> None:
        if op is Op.ITEM:
            self._put(call, body)
        elif op is Op.END:
            self._end(stream, call, None)

    def _on_items(self, count: int, body: bytes) -> None:
        try:
            items = items_of(count, body)
        except ValueError:
            return self.abort()
        for stream, item in items:
            if call := self._calls.get(stream):
                self._put(call, item)
        return None

    def _put(self, call: Stream, item: bytes) -> None:
        if not call.put(item):
            self.abort()  # it sends what it has no credit for

    def _end(self, stream: int, call: Stream, error: FlotillaError | None) -> None:
        """A tap is gone with its end; what is pulled stays until its last item was."""
        if isinstance(call, Tap):
            del self._calls[stream]
        call.end(error)

    def _on_error(self, stream: int, body: bytes) -> None:
        try:
            error = error_of(_decode_problem(body))
        except msgspec.DecodeError:
            return self.abort()
        if asked := self._asks.pop(stream, None):
            if not asked[0].done():
                asked[0].set_exception(error)
        elif call := self._calls.get(stream):
            self._end(stream, call, error)
        return None

    def on_lost(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        asks, self._asks = self._asks, {}
        for answer, _ in asks.values():
            if not answer.done():
                answer.set_exception(self._broke())
        for stream, call in list(self._calls.items()):
            if not call.over:
                self._end(stream, call, self._broke())

    def _broke(self) -> Unavailable:
        return Unavailable(f"The link to {self.address} broke.", retry_after_s=0.5)

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

    def __len__(self) -> int:
        """How many are up."""
        return sum(not link.lost for link in self._links.values())

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
