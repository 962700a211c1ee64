"""Conversations live: SSE one way, WebSocket both ways."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response, WebSocket
from starlette.responses import StreamingResponse

from flotilla.core.errors import FlotillaError
from serve import auth, streams
from serve.auth import Principal, needs
from serve.bodies import parse_place
from serve.doors import doors_of
from serve.limits.guarded import guarded
from serve.metrics import OPEN_SOCKETS, OPEN_STREAMS
from serve.sockets import codes
from serve.sockets.asgi import AsgiEnd
from serve.sockets.conversation import Conversation

router = APIRouter(prefix="/v1/sessions", tags=["live"])


@router.get("/{session}/stream", response_class=StreamingResponse, responses=streams.DECLARED)
async def stream(
    request: Request,
    who: Annotated[Principal, needs("conversations:read", visitors=True)],
    session: str,
    after: str | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """SSE. `Last-Event-ID` wins over `after`; both are `SEQ` or `SEQ:OFFSET`."""
    doors, actor = doors_of(request), who.actor(session)
    field = "Last-Event-ID" if last_event_id else "after"
    seq, offset = parse_place(last_event_id or after, field=field)
    await streams.check_place(doors, actor, seq, field=field)
    frames = streams.paused(doors, actor, seq, offset, visitor=who.visitor)
    return streams.sse(OPEN_STREAMS.counted(await guarded(doors, who, frames, quiet=True)))


@router.websocket("/{session}/ws")
async def socket(ws: WebSocket, session: str, after: str | None = None) -> None:
    """Where no proxy of ours stands before the gateway (FLOTILLA_HA_PROXY=0); else `serve.sockets.protocol`
    answers, in the same way."""
    offered: list[str] = ws.scope.get("subprotocols") or []
    await ws.accept(subprotocol=next((n for n in offered if n.startswith(auth.SUBPROTOCOL)), None))
    end = AsgiEnd(ws)
    try:
        who = await auth.identify(ws)
        auth.check_scope(who, "conversations:write")
        conversation = Conversation(doors_of(ws), who, who.actor(session), end)
        await conversation.begin(after)
    except FlotillaError as error:
        end.send(codes.error_frame(error, end.request_id))
        end.close(codes.of(error), error.title)
        return await end.write()
    with OPEN_SOCKETS.track_inprogress():
        return await end.run(conversation)
