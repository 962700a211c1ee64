"""Events on their way out: the live stream of a session, the events of one turn, and SSE's form of both."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse

from flotilla.core import signals
from flotilla.core.errors import Refused
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from flotilla.views import events
from flotilla.views.events import Frame
from serve.doors import Doors

# For the OpenAPI document: 200 is a stream of events, or that or one event.
DECLARED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
DECLARED_OR_JSON: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The finished reply, or the events of its turn.",
        "content": {"application/json": {}, "text/event-stream": {}},
    }
}
Paused = Frame | None
"""An event, or nothing when there was none for a while: then the line is kept open."""


async def check_place(doors: Doors, actor: ActorId, after: int) -> None:
    """Raises `NotFound` for an unknown session, `Refused` for a `seq` from the future."""
    view = await doors.fleet.ask(actor, signals.Describe())
    if after > view.seq:
        raise Refused(
            f"`after` is {after}, but the last event is {view.seq}.",
            field="after",
            next="Send the last seq that you have seen.",
        )


async def reading(doors: Doors, actor: ActorId, after: int, offset: int = 0) -> AsyncGenerator[Paused]:
    """What has happened since `after` and what happens from now on, until the gateway goes away: then the
    stream ends, and its reader goes on elsewhere."""
    events_ = doors.fleet.read(actor, after, offset)
    with doors.going.told(events_.stop):
        try:
            while (frame := await events_.next(LIMITS.keep_open_every_s)) is not None or not events_.stopped:
                yield frame
        finally:
            events_.close()


async def live(
    doors: Doors, actor: ActorId, after: int, offset: int = 0, *, visitor: bool
) -> AsyncGenerator[Frame]:
    """The same until the session is closed; for a `visitor` without what is not for the customer."""
    async with aclosing(unpaused(paused(doors, actor, after, offset, visitor=visitor))) as frames:
        async for frame in frames:
            yield frame


async def unpaused(frames: AsyncGenerator[Paused]) -> AsyncGenerator[Frame]:
    async with aclosing(frames) as paced:
        async for frame in paced:
            if frame is not None:
                yield frame


async def paused(
    doors: Doors, actor: ActorId, after: int, offset: int = 0, *, visitor: bool
) -> AsyncGenerator[Paused]:
    async with aclosing(reading(doors, actor, after, offset)) as frames:
        async for frame in frames:
            if frame is None:
                yield None
                continue
            type = events.type_of(frame)
            if visitor and type in events.NOT_FOR_VISITORS:
                continue
            yield frame
            if type == "session.closed":
                return


async def turn(doors: Doors, actor: ActorId, accepted: signals.Accepted) -> AsyncGenerator[Frame]:
    """The events of one turn, from the `message.accepted` to its end; of a message that no agent answers,
    that one event. A gateway that goes away waits for it."""
    async with aclosing(doors.fleet.follow(actor, accepted.seq - 1)) as frames:
        async for frame in frames:
            envelope = events.open_envelope(frame.json)
            if (envelope.turn or "") != accepted.turn or envelope.type in events.NOT_FOR_VISITORS:
                continue
            yield frame
            if envelope.type in events.TURN_ENDS or not accepted.turn:
                return


def sse(frames: AsyncGenerator[Paused] | AsyncGenerator[Frame]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_sse(frames), media_type="text/event-stream", headers=headers)


async def _sse(frames: AsyncGenerator[Paused] | AsyncGenerator[Frame]) -> AsyncGenerator[bytes]:
    """An event each, and a comment line whenever it has been quiet for long."""
    async with aclosing(frames) as paced:
        async for frame in paced:
            yield b":\n\n" if frame is None else b"id: %b\ndata: %b\n\n" % (frame.id.encode(), frame.json)
