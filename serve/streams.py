"""Events on their way out: the live stream of a session, the events of one turn, and SSE's form of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse

from actors.following import Reading
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


async def check_place(doors: Doors, actor: ActorId, after: int, *, field: str = "after") -> None:
    """Raises `NotFound` for an unknown session, `Refused` for a `seq` from the future; `field` is where it was."""
    view = await doors.fleet.ask(actor, signals.Describe())
    if after > view.seq:
        raise Refused(
            f"`{field}` is {after}, but the last event is {view.seq}.",
            field=field,
            next="Send the last seq that you have seen.",
        )


async def _paced(events_: Reading, shown: Callable[[Frame], bool]) -> AsyncGenerator[Paused]:
    """Those that are `shown`, until there will be no more, and nothing whenever none of them came for a while:
    what is hidden keeps no line open."""
    now = asyncio.get_running_loop().time
    said_at = now()
    try:
        while True:
            left_s = max(0.0, said_at + LIMITS.keep_open_every_s - now())
            frame = await events_.next(left_s)
            if frame is None and events_.stopped:
                return
            if frame is not None and not shown(frame):
                if left_s:
                    continue
                frame = None
            said_at = now()
            yield frame
    finally:
        events_.close()


def _all(_: Frame) -> bool:
    return True


async def reading(
    doors: Doors, actor: ActorId, after: int, offset: int = 0, *, shown: Callable[[Frame], bool] = _all
) -> AsyncGenerator[Paused]:
    """What has happened since `after` and what happens from now on, as far as it is `shown`, until the gateway
    goes away: then the stream ends, and its reader goes on elsewhere."""
    events_ = doors.fleet.read(actor, after, offset)
    with doors.going.told(events_.stop):
        async with aclosing(_paced(events_, shown)) as frames:
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
    """The same until the session is closed; for a `visitor` without what is not for the customer."""
    shown = _for_visitors if visitor else _all
    async with aclosing(reading(doors, actor, after, offset, shown=shown)) as frames:
        async for frame in frames:
            yield frame
            if frame is not None and events.type_of(frame) == "session.closed":
                return


def _for_visitors(frame: Frame) -> bool:
    return events.type_of(frame) not in events.NOT_FOR_VISITORS


async def turn(doors: Doors, actor: ActorId, accepted: signals.Accepted) -> AsyncGenerator[Paused]:
    """The events of one turn, from the `message.accepted` to its end; of a message that no agent answers,
    that one event. A gateway that goes away waits for it."""

    def shown(frame: Frame) -> bool:
        envelope = events.open_envelope(frame.json)
        return (envelope.turn or "") == accepted.turn and envelope.type not in events.NOT_FOR_VISITORS

    async with aclosing(_paced(doors.fleet.read(actor, accepted.seq - 1), shown)) as frames:
        async for frame in frames:
            yield frame
            if frame is not None and (not accepted.turn or events.type_of(frame) in events.TURN_ENDS):
                return


def sse(frames: AsyncGenerator[Paused]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_sse(frames), media_type="text/event-stream", headers=headers)


async def _sse(frames: AsyncGenerator[Paused]) -> AsyncGenerator[bytes]:
    """An event each, and a comment line whenever it has been quiet for long."""
    async with aclosing(frames) as paced:
        async for frame in paced:
            yield b":\n\n" if frame is None else b"id: %b\ndata: %b\n\n" % (frame.id.encode(), frame.json)
