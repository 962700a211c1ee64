"""Events on their way out: the live stream of a session, the events of one turn, and SSE's form of both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.responses import StreamingResponse

from flotilla.core import signals
from flotilla.core.errors import Refused
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from flotilla.views import events
from flotilla.views.events import Frame
from serve.doors import Doors


async def check_place(doors: Doors, actor: ActorId, after: int) -> None:
    """Raises `NotFound` for an unknown session, `Refused` for a `seq` from the future."""
    view = await doors.fleet.ask(actor, signals.Describe())
    if after > view.seq:
        raise Refused(
            f"`after` is {after}, but the last event is {view.seq}.",
            field="after",
            next="Send the last seq that you have seen.",
        )


async def live(
    doors: Doors, actor: ActorId, after: int, offset: int = 0, *, visitor: bool
) -> AsyncGenerator[Frame]:
    """What has happened since `after` and what happens from now on, until the session is closed; for a
    `visitor` without what is not for the customer."""
    async with aclosing(doors.fleet.follow(actor, after, offset)) as frames:
        async for frame in frames:
            type = events.type_of(frame)
            if visitor and type in events.NOT_FOR_VISITORS:
                continue
            yield frame
            if type == "session.closed":
                return


async def turn(doors: Doors, actor: ActorId, accepted: signals.Accepted) -> AsyncGenerator[Frame]:
    """The events of one turn, from the `message.accepted` to its end; of a message that no agent answers,
    that one event."""
    async with aclosing(live(doors, actor, accepted.seq - 1, visitor=True)) as frames:
        async for frame in frames:
            envelope = events.open_envelope(frame.json)
            if (envelope.turn or "") != accepted.turn:
                continue
            yield frame
            if envelope.type in events.TURN_ENDS or not accepted.turn:
                return


def sse(frames: AsyncGenerator[Frame]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_sse(frames), media_type="text/event-stream", headers=headers)


async def _sse(frames: AsyncGenerator[Frame]) -> AsyncGenerator[bytes]:
    """An event each, and a comment line whenever it has been quiet for long."""
    async with aclosing(_with_pauses(frames, LIMITS.keep_open_every_s)) as paced:
        async for frame in paced:
            yield b":\n\n" if frame is None else b"id: %b\ndata: %b\n\n" % (frame.id.encode(), frame.json)


async def _with_pauses(frames: AsyncGenerator[Frame], every_s: float) -> AsyncGenerator[Frame | None]:
    coming: asyncio.Task[Frame] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(frames))
            done, _ = await asyncio.wait({coming}, timeout=every_s)
            if not done:
                yield None
                continue
            task, coming = coming, None
            try:
                yield task.result()
            except StopAsyncIteration:
                return
    finally:
        if coming is not None:
            coming.cancel()
            with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                await coming
        await frames.aclose()
