"""Conversations live: SSE one way, WebSocket both ways."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from contextlib import aclosing
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Request, Response, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from channels import web
from flotilla.core import signals
from flotilla.core.errors import FlotillaError, Refused
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from flotilla.views import events
from flotilla.views.sessions import recorded
from serve import auth, streams
from serve.auth import Anyone
from serve.bodies import check_text, parse_place
from serve.doors import Doors, doors_of
from serve.metrics import OPEN_SOCKETS, OPEN_STREAMS

router = APIRouter(prefix="/v1/sessions", tags=["live"])

CLOSE_DONE = 1000
CLOSE_POLICY = 1008
CLOSE_TRY_AGAIN = 1013
CLOSE_UNAUTHENTICATED = 4401
CLOSE_REFUSED = 4422


@router.get("/{session}/stream")
async def stream(
    request: Request,
    who: Anyone,
    session: str,
    after: str | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """SSE. `Last-Event-ID` wins over `after`; both are `SEQ` or `SEQ:OFFSET`."""
    doors, actor = doors_of(request), who.actor(session)
    field = "Last-Event-ID" if last_event_id else "after"
    seq, offset = parse_place(last_event_id or after, field=field)
    await streams.check_place(doors, actor, seq)
    frames = streams.live(doors, actor, seq, offset, visitor=who.visitor)
    return streams.sse(OPEN_STREAMS.counted(frames))


@router.websocket("/{session}/ws")
async def socket(ws: WebSocket, session: str, after: str | None = None) -> None:
    offered: list[str] = ws.scope.get("subprotocols") or []
    chosen = next((name for name in offered if name.startswith(auth.SUBPROTOCOL)), None)
    await ws.accept(subprotocol=chosen)
    try:
        who = auth.identify(ws)
        actor = who.actor(session)
        seq, offset = parse_place(after, field="after")
        await streams.check_place(doors_of(ws), actor, seq)
    except FlotillaError as error:
        return await _turn_away(ws, error)
    with OPEN_SOCKETS.track_inprogress():
        await _Socket(ws, doors_of(ws), actor, visitor=who.visitor).run(seq, offset)
    return None


async def _turn_away(ws: WebSocket, error: FlotillaError) -> None:
    """The browser can't see the status of a refused handshake, so the reason comes as a frame first."""
    codes = {401: CLOSE_UNAUTHENTICATED, 403: CLOSE_UNAUTHENTICATED, 503: CLOSE_TRY_AGAIN}
    await ws.send_text(_error(error))
    await ws.close(codes.get(error.status, CLOSE_REFUSED), reason=error.title[:100])


def _error(error: FlotillaError, id: str | None = None) -> str:
    name = {"id": id} if id is not None else {}
    return msgspec.json.encode({"type": "error", **name, "problem": error.problem()}).decode()


class _Gone(Exception):
    """The other side has hung up."""


class _Socket:
    """One open socket: events out, frames in, until either side is done."""

    def __init__(self, ws: WebSocket, doors: Doors, actor: ActorId, *, visitor: bool) -> None:
        self._ws = ws
        self._doors = doors
        self._actor = actor
        self._visitor = visitor
        self._unreadable = 0
        self._after = 0  # where the events of this socket begin

    async def run(self, after: int, offset: int) -> None:
        self._after = after
        out = asyncio.create_task(self._write(after, offset))
        back = asyncio.create_task(self._read())
        try:
            done, _ = await asyncio.wait({out, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:  # also when Serve cancels us, as it does once the other side has hung up
            for task in (out, back):
                task.cancel()
            await asyncio.gather(out, back, return_exceptions=True)
        for task in done:
            with contextlib.suppress(_Gone):
                task.result()
        if self._ws.application_state is WebSocketState.CONNECTED:
            await self._close(CLOSE_DONE)

    async def _write(self, after: int, offset: int) -> None:
        try:
            live = streams.live(self._doors, self._actor, after, offset, visitor=self._visitor)
            async with aclosing(live) as frames:
                async for frame in frames:
                    await self._send(frame.json.decode())
        except FlotillaError as error:  # a reader too slow, say: it may come back
            await self._send(_error(error))
            await self._close(CLOSE_TRY_AGAIN)

    async def _read(self) -> None:
        while True:
            message = await self._ws.receive()
            if message["type"] == "websocket.disconnect":
                return None
            try:
                await self._take(message.get("text"))
                self._unreadable = 0
            except FlotillaError as error:
                await self._send(_error(error))
                if self._unreadable >= LIMITS.unreadable_frames_max:
                    return await self._close(CLOSE_POLICY)

    async def _take(self, text: str | None) -> None:
        match self._parse(text):
            case web.Message() as message:
                await self._refusable(message.id, self._post(message))
            case web.Interrupt():
                await self._doors.fleet.ask(self._actor, signals.Interrupt())
            case web.Ping():
                await self._send('{"type":"pong"}')
            case web.Typing():
                pass

    async def _refusable(self, id: str, post: Awaitable[None]) -> None:
        """A message that is refused is named, so that the client knows which one."""
        try:
            await post
        except FlotillaError as error:
            await self._send(_error(error, id))

    def _parse(self, text: str | None) -> web.Frame:
        self._unreadable += 1
        if text is None:
            raise Refused("Binary frames are not read.", next="Send text frames with JSON.")
        check_text(text, field="frame", bytes_max=LIMITS.body_bytes_max)
        frame = web.parse(text)
        self._unreadable = 0
        return frame

    async def _post(self, message: web.Message) -> None:
        began = time.monotonic()
        check_text(message.text)
        waited_ms = (time.monotonic() - began) * 1000
        post = signals.Post(
            id=message.id, text=message.text, waited_ms=waited_ms, while_talking=message.while_talking
        )
        with self._doors.traces.call("message over WebSocket", self._actor) as call:
            accepted = await self._doors.fleet.ask(self._actor, post, call=call)
        # Its event came before this socket's first: who says it again wants to know all the same.
        if accepted.again and accepted.seq <= self._after:
            journal = await self._doors.journal()
            for stored in await journal.read(self._actor, after=accepted.seq - 1, limit=1):
                await self._send(msgspec.json.encode(events.event(recorded(stored))).decode())

    async def _send(self, text: str) -> None:
        try:
            await self._ws.send_text(text)
        except (WebSocketDisconnect, RuntimeError) as error:  # the other side has gone
            raise _Gone from error

    async def _close(self, code: int) -> None:
        try:
            await self._ws.close(code)
        except (WebSocketDisconnect, RuntimeError):
            return
