"""What is said on one socket, whatever carries it: events out, the client's frames in."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from actors.watch import Watch
from channels import web
from flotilla.core import signals
from flotilla.core.errors import FlotillaError, Refused
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from flotilla.views import events
from flotilla.views.events import Frame
from flotilla.views.sessions import recorded
from serve import streams
from serve.bodies import check_text, parse_place
from serve.doors import Doors
from serve.principals import Principal
from serve.sockets import codes

PONG = b'{"type":"pong"}'


class End(Protocol):
    """The socket. None of this waits."""

    @property
    def request_id(self) -> str:
        """Of the request that opened it."""
        ...

    def send(self, json: bytes) -> bool:
        """False if the reader is behind: `Conversation.caught_up` is called when it isn't any more."""
        ...

    def close(self, code: int, reason: str = "") -> None:
        """Behind all that was sent."""
        ...

    def hold(self) -> None:
        """Nothing more is read until `go_on`."""
        ...

    def go_on(self) -> None: ...


class Conversation:
    """Make one, `begin` it, and tell it what is heard; `over` when the socket is gone."""

    __slots__ = (
        "_actor",
        "_after",
        "_behind",
        "_deaf",
        "_doors",
        "_end",
        "_inbox",
        "_leave",
        "_typed_at",
        "_unreadable",
        "_unwatch",
        "_watch",
        "_who",
        "_worker",
    )

    def __init__(self, doors: Doors, who: Principal, actor: ActorId, end: End) -> None:
        self._doors = doors
        self._who = who
        self._actor = actor
        self._end = end
        self._after = 0  # where the events of this socket begin
        self._behind = False  # the reader, with what was sent
        self._deaf = False  # nothing that is said counts any more
        self._unreadable = 0
        self._typed_at = -math.inf
        self._watch: Watch | None = None
        self._unwatch: Callable[[], None] | None = None
        self._leave: Callable[[], None] | None = None
        self._inbox: deque[web.Message | web.Interrupt] | None = None
        self._worker: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Conversation with {self._actor}>"

    async def begin(self, after: str | None) -> None:
        """Raises `NotFound` for an unknown session, `Refused` for a place that nobody can have come to,
        `LimitReached` if the tenant or the key has too many sockets."""
        seq, offset = parse_place(after, field="after")
        self._after = seq
        # First, or a key that is revoked meanwhile would be noticed by nobody.
        self._unwatch = self._doors.revocations.watch(self._who, self._revoked)
        try:
            await streams.check_place(self._doors, self._actor, seq)
            self._leave = await self._doors.limits.socket(self._who)
            self._watch = self._doors.fleet.watch(self._actor, seq, offset, self)
        except BaseException:
            self.over()
            raise

    def over(self) -> None:
        """What was heard is still done: nobody can tell whether the client counts on it."""
        if self._watch is not None:
            self._watch.close()
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    @property
    def full(self) -> bool:
        """Nothing more is to be read before some of what was heard is done."""
        return self._inbox is not None and len(self._inbox) >= LIMITS.socket_inbox_max

    def _revoked(self, error: FlotillaError) -> None:
        """What was heard and is not done yet is not done any more."""
        self._deaf = True
        if self._inbox:
            self._inbox.clear()
        self._tell(error)
        self._end.close(codes.UNAUTHENTICATED, error.title)

    def _tell(self, error: FlotillaError, id: str | None = None) -> None:
        self._end.send(codes.error_frame(error, self._end.request_id, id))

    # -- events out

    def frame(self, frame: Frame) -> None:
        assert self._watch is not None
        type = events.type_of(frame)
        if not (self._who.visitor and type in events.NOT_FOR_VISITORS):
            self._behind = not self._end.send(frame.json)
        if not self._behind:  # what is hidden is taken too, or the window would be full of it
            self._watch.take()
        if type == "session.closed":
            self._end.close(codes.DONE)

    def failed(self, error: FlotillaError) -> None:
        """A reader too slow, say: it may come back."""
        self._tell(error)
        self._end.close(codes.TRY_AGAIN, error.title)

    def caught_up(self) -> None:
        self._behind = False
        if self._watch is not None:
            self._watch.take()

    # -- frames in

    def hear(self, text: str | None) -> None:
        """`None` for what is no text. Five in a row that can't be read close the socket."""
        if self._deaf:
            return
        try:
            frame = _read(text)
        except FlotillaError as error:
            self._tell(error)
            self._unreadable += 1
            if self._unreadable >= LIMITS.unreadable_frames_max:
                self._deaf = True
                self._end.close(codes.POLICY, "Too many frames that can't be read.")
            return
        self._unreadable = 0
        match frame:
            case web.Message():
                self._let_in(frame)
            case web.Interrupt():
                self._queue(frame)
            case web.Ping():
                self._end.send(PONG)
            case web.Typing():
                self._type()

    def _type(self) -> None:
        """A hint that nobody waits for: what can't be told now is not told."""
        now = self._doors.clock.monotonic()
        if now < self._typed_at + LIMITS.typing_every_s:
            return
        self._typed_at = now
        try:
            self._doors.fleet.tell(self._actor, signals.Typing(visitor=self._who.visitor))
        except FlotillaError as error:
            self._doors.fleet.lost(self._actor, error)

    def _let_in(self, message: web.Message) -> None:
        """Before anything is done for it: a gateway with too much to do says no with next to nothing done."""
        try:
            self._doors.fleet.check(self._actor)
        except FlotillaError as error:
            self._tell(error, message.id)
        else:
            self._queue(message)

    def _queue(self, frame: web.Message | web.Interrupt) -> None:
        """One is done after the other, in the order in which they came."""
        inbox = self._inbox = deque() if self._inbox is None else self._inbox
        inbox.append(frame)
        if self.full:
            self._end.hold()
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work(inbox))

    async def _work(self, inbox: deque[web.Message | web.Interrupt]) -> None:
        while inbox:
            await self._do(inbox.popleft())
            if len(inbox) == LIMITS.socket_inbox_max - 1:
                self._end.go_on()
        self._worker = self._inbox = None

    async def _do(self, frame: web.Message | web.Interrupt) -> None:
        """A message that is refused is named, so that the client knows which one."""
        id = frame.id if isinstance(frame, web.Message) else None
        try:
            if isinstance(frame, web.Message):
                await self._post(frame)
            else:
                await self._doors.fleet.ask(self._actor, signals.Interrupt())
        except FlotillaError as error:
            self._tell(error, id)
        except Exception as error:
            self._doors.log.error("socket.broke", actor=str(self._actor), exc_info=error)
            self._tell(FlotillaError("The message could not be taken.", next="Try again."), id)

    async def _post(self, message: web.Message) -> None:
        check_text(message.text)
        await self._doors.limits.message(self._who)
        post = signals.Post(id=message.id, text=message.text, while_talking=message.while_talking)
        with self._doors.traces.call("message over WebSocket", self._actor) as call:
            accepted = await self._doors.fleet.ask_checked(self._actor, post, call=call)
        if accepted.again and accepted.seq <= self._after:
            await self._repeat(accepted.seq)

    async def _repeat(self, seq: int) -> None:
        """Its event came before this socket's first: who says it again wants to know all the same."""
        journal = await self._doors.journal()
        for stored in await journal.read(self._actor, after=seq - 1, limit=1):
            self._end.send(msgspec.json.encode(events.event(recorded(stored))))


def _read(text: str | None) -> web.Frame:
    if text is None:
        raise Refused("Binary frames are not read.", next="Send text frames with JSON.")
    check_text(text, field="frame", bytes_max=LIMITS.body_bytes_max)
    return web.parse(text)
