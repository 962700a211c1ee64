"""A conversation on a WebSocket that is always on its way back.

It is driven by whoever reads its events: nothing is received, and no connection made again, while nobody does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from math import inf
from types import TracebackType
from typing import Any, Self

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from flotilla.client.calls import Calls
from flotilla.client.closing import is_cancelled
from flotilla.client.conversing import OfTurn, Outgoing, Reply, finished, is_last
from flotilla.client.events import Accepted, Denied, Event, Other, read
from flotilla.client.outbox import Outbox
from flotilla.client.reading import Reader
from flotilla.client.resuming import resumed
from flotilla.client.sockets import opened, why_closed
from flotilla.client.trying import helps
from flotilla.core.agents import WhileTalking
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError, Problem, Refused, TooLarge, Unavailable, error_of
from flotilla.core.ids import new_id
from flotilla.core.limits import LIMITS as FLEET_LIMITS


class _Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """`id` names the message that the problem is about."""

    problem: Problem
    id: str = ""


_decode_trouble = msgspec.json.Decoder(_Trouble).decode


class Talk:
    """Both ways on one socket: `say` and iterate. Comes back from where it was; what was said and not
    accepted is said again under the same id."""

    def __init__(self, calls: Calls, clock: Clock, path: str, after: int | str = 0) -> None:
        self._calls = calls
        self._clock = clock
        self._path = f"{path}/ws"
        self._reader = Reader(after)
        self._outbox = Outbox(calls.limits)
        self._socket: ClientConnection | None = None
        self._stands = asyncio.Event()
        self._trouble: FlotillaError | None = None
        self._typing_due = -inf
        self._alarm: asyncio.Timeout | None = None
        self._coming: asyncio.Task[Event] | None = None
        self._read = self._closed = False
        self._events = resumed(self._connect, self._reader, calls.trying(), is_last)

    @property
    def place(self) -> str:
        """What has been read so far: connecting `after` it goes on right behind."""
        return self._reader.place

    @property
    def unaccepted(self) -> int:
        """Messages that were said and are not in the record yet, as far as this side knows."""
        return len(self._outbox)

    async def __aenter__(self) -> Self:
        """Connecting begins at once, so that what is said soon need not wait for a reader."""
        self._coming = asyncio.create_task(self._next())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def connected(self) -> bool:
        """Whether a connection stands now. Without one, what is said waits for the next."""
        return self._socket is not None

    async def ready(self) -> None:
        """Returns when a connection stands. Raises what reading raises if there is to be none."""
        self._check_open()
        coming = self._coming = self._coming or asyncio.create_task(self._next())
        standing = asyncio.create_task(self._stands.wait())
        try:
            await asyncio.wait({coming, standing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            standing.cancel()
        if coming.done() and not coming.cancelled() and (error := coming.exception()):
            raise error

    async def ping(self) -> None:
        """Returns when the fleet has answered on the connection that stands. Raises `Unavailable` if there is
        none, or if it breaks meanwhile."""
        if self._socket is None:
            raise _unconnected()
        try:
            await (await self._socket.ping())
        except ConnectionClosed as error:
            raise why_closed(error, None) from None

    def reconnect(self) -> None:
        """Lets go of the connection without a good-bye: whoever reads goes on with another one, from the same
        place. For when the network has changed, or a ping is not answered."""
        socket, self._socket = self._socket, None
        self._stands.clear()
        if socket is not None:
            socket.transport.abort()

    async def aclose(self) -> None:
        self._closed = True
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.gather(self._coming, return_exceptions=True)
        await self._events.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event. Whoever stops waiting for it loses nothing: it is the next one's. Raises `Refused` if
        somebody else waits already: each would miss what the other takes."""
        if self._read:
            raise Refused("Somebody reads this talk already.", next="Read in one place, or connect again.")
        if self._closed:
            raise StopAsyncIteration
        coming = self._coming = self._coming or asyncio.create_task(self._next())
        self._read = True
        try:
            return await asyncio.shield(coming)
        except asyncio.CancelledError:
            if not self._closed or is_cancelled():
                raise
            raise StopAsyncIteration from None  # the talk was closed; its reader was not
        finally:
            self._read = False
            if coming.done():
                self._coming = None

    async def _next(self) -> Event:
        return await anext(self._events)

    def _check_open(self) -> None:
        if self._closed:
            raise Refused("The talk is closed.", next="Connect again.")

    # -- speaking

    async def say(
        self, text: str, *, id: str | None = None, while_talking: WhileTalking | None = None
    ) -> str:
        """The message's id. It is on its way: `Accepted` or `Denied` tell what became of it. Raises
        `TooLarge`, `LimitReached` if too many wait to be accepted, and `Refused` if the talk is closed."""
        self._check_open()
        message = Outgoing(id=id or new_id("m"), text=_checked(text), while_talking=while_talking)
        self._outbox.add(message)
        await self._say_due()
        return message.id

    async def send(
        self, text: str, *, id: str | None = None, while_talking: WhileTalking | None = None
    ) -> AsyncGenerator[Event]:
        """Says `text` and gives the events of its turn, to its end. Others that come in between are lost."""
        turn = OfTurn(await self.say(text, id=id, while_talking=while_talking))
        async for event in self:
            if turn.has(event):
                yield event
                if turn.ends(event):
                    return

    async def ask(
        self, text: str, *, id: str | None = None, while_talking: WhileTalking | None = None
    ) -> Reply:
        """Says `text` and waits for its reply."""
        async with aclosing(self.send(text, id=id, while_talking=while_talking)) as events:
            return await finished(events)

    async def interrupt(self) -> None:
        """Stops the running reply. Raises `Unavailable` without a connection: it is said once or not at all."""
        await self._frame({"type": "interrupt"})

    async def typing(self) -> None:
        """Says that somebody writes, to whoever follows just now. Not more often than `typing_every_s`, and not
        without a connection: it is of the moment."""
        now = self._clock.monotonic()
        if self._socket is not None and now >= self._typing_due:
            self._typing_due = now + self._calls.limits.typing_every_s
            with suppress(Unavailable):
                await self._frame({"type": "typing"})

    async def _frame(self, frame: dict[str, Any]) -> None:
        try:
            if self._socket is None:
                raise _unconnected()
            await self._socket.send(msgspec.json.encode(frame).decode())
        except ConnectionClosed as error:
            raise why_closed(error, None) from None

    async def _say_due(self) -> None:
        """On a broken connection nothing is said: whoever reads finds that out, and it is said on the next."""
        if self._socket is not None and (message := self._outbox.due(self._clock.monotonic())):
            with suppress(ConnectionClosed):
                await self._socket.send(_encode_message(message))
        self._set_alarm()

    # -- hearing

    async def _connect(self, place: str) -> AsyncGenerator[Event]:
        """One connection, from its opening to its end."""
        async with opened(self._calls, f"{self._path}?after={place}") as socket:
            self._socket, self._trouble = socket, None
            self._stands.set()
            self._outbox.reconnected()
            try:
                while True:
                    await self._say_due()
                    frame = await self._receive(socket)
                    if frame is not None and (event := self._understood(frame)):
                        yield event
            except ConnectionClosed as error:
                raise why_closed(error, self._trouble) from None
            finally:
                self._socket = None
                self._stands.clear()

    async def _receive(self, socket: ClientConnection) -> bytes | None:
        """The next frame; None when a message is due again."""
        try:
            async with asyncio.timeout(None) as self._alarm:
                self._set_alarm()
                return await socket.recv(decode=False)
        except TimeoutError:
            return None
        finally:
            self._alarm = None

    def _set_alarm(self) -> None:
        """While frames are waited for, they are waited for until a message is due again."""
        due = self._outbox.next_due
        if due is not None and self._alarm is not None and not self._alarm.expired():
            left_s = max(0.0, due - self._clock.monotonic())
            self._alarm.reschedule(asyncio.get_running_loop().time() + left_s)

    def _understood(self, frame: bytes) -> Event | None:
        event = read(frame)
        if isinstance(event, Other) and event.type == "error":
            return self._troubled(_decode_trouble(frame))
        self._trouble = None
        if isinstance(event, Accepted):
            self._outbox.accepted(event.message.id)
        return event

    def _troubled(self, told: _Trouble) -> Denied | None:
        """A message that the fleet can't take now is said again later; else it is denied. What is about no
        message says why the fleet hangs up next."""
        error = error_of(told.problem)
        if not told.id:
            self._trouble = error
            return None
        until = self._clock.monotonic() + max(self._calls.limits.again_s, error.retry_after_s or 0.0)
        if helps(error) and self._outbox.put_off(told.id, until):
            self._calls.on_retry(error)
            return None
        self._outbox.accepted(told.id)
        return Denied(id=told.id, problem=told.problem)


def _unconnected() -> Unavailable:
    return Unavailable("There is no connection now.", next="Read events; it comes back.")


def _encode_message(message: Outgoing) -> str:
    return msgspec.json.encode({"type": "message", **msgspec.to_builtins(message)}).decode()


def _checked(text: str) -> str:
    """A frame that the fleet can't read would not say which message it was."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Refused(
            "`text` has half a surrogate pair.", field="text", next="Send whole characters."
        ) from None
    if size > FLEET_LIMITS.message_bytes_max:
        raise TooLarge(
            f"`text` has {size} bytes; at most {FLEET_LIMITS.message_bytes_max} fit.",
            field="text",
            next="Send less.",
        )
    return text
