"""A host's end of the links: frames in, actors' answers out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from actors import follower, frames, inspection
from actors.host import Host, refused
from actors.outcomes import moved
from actors.outlet import Feed, Outlet
from actors.reply import Reply
from actors.tickets import Replayed
from flotilla.core.calls import Call
from flotilla.core.errors import FlotillaError, NotFound

NO_CALL = Call()


class Remote:
    """An asker at the other end of a link (`actors.tickets.Ticket`)."""

    __slots__ = ("_reply",)

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    @property
    def gone(self) -> bool:
        return self._reply.gone

    def answer(self, value: Any) -> None:
        self._reply.answer(frames.encode(value))

    def refuse(self, error: FlotillaError) -> None:
        self._reply.refuse(error)

    def part(self, value: Any) -> None:
        """Whoever asks for one answer gets the last."""

    def when_gone(self, tell: Callable[[], None]) -> None:
        self._reply.on_cancel = tell
        if self._reply.gone:
            tell()


class Answering:
    """`asked`, `handle` and `feeds` are what a `Listener` calls."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.feeds: dict[str, Feed] = {"follow": self._follow}

    # -- one frame in, one out

    def asked(self, method: str, body: bytes, reply: Reply | None) -> None:
        ticket = None if reply is None else Remote(reply)
        try:
            self._deliver(method, body, ticket)
        except Exception as error:
            if ticket is None or not isinstance(error, FlotillaError):
                self._host.runtime.log.warning("frame.refused", method=method, reason=str(refused(error)))
            if ticket is not None:
                ticket.refuse(refused(error))

    def _deliver(self, method: str, body: bytes, ticket: Remote | None) -> None:
        if method in ("ask", "tell"):
            frame = frames.decode_ask(body)
            message = self._host.message(frame.actor, frame.message)
            self._host.deliver(frame.actor, message, ticket, frame.call, hops=frame.hops)
        elif method == "due":
            frame = frames.decode_due(body)
            assert ticket is not None
            self._host.due(frame.actor, frame.due, ticket, frame.hops)
        elif method == "replay":
            frame = frames.decode_replay(body)
            assert ticket is not None
            message = inspection.replayed(self._host, frame)
            self._host.deliver(frame.actor, message, Replayed(ticket, frame.letter), NO_CALL, hops=frame.hops)
        elif ticket is not None:
            self._host.spawn(self._answer(method, body, ticket))

    async def _answer(self, method: str, body: bytes, ticket: Remote) -> None:
        try:
            ticket.answer(await inspection.answer(self._host, method, body))
        except FlotillaError as error:
            ticket.refuse(error)
        except Exception as error:
            ticket.refuse(refused(error))
            raise

    # -- streams

    def _follow(self, body: bytes, outlet: Outlet) -> None:
        frame = frames.decode_follow(body)
        reader = follower.Remote(frame.after, frame.offset, outlet)
        activation = self._host.follow(frame.actor, reader, frame.hops)

        def gone() -> None:
            reader.end(moved())
            activation.unfollow(reader)

        outlet.on_gone = gone

    async def handle(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        if method != "stream":
            raise NotFound(f"A host has no method {method!r}.")
        async with aclosing(self._stream(frames.decode_ask(body))) as items:
            async for item in items:
                yield item

    async def _stream(self, frame: frames.AskFrame) -> AsyncGenerator[bytes]:
        message = self._host.message(frame.actor, frame.message)
        stream = self._host.stream(frame.actor, message, frame.call, frame.hops)
        async with aclosing(stream.items()) as items:
            async for item in items:
                yield frames.encode(item)
