"""`flotilla.v1.Conversations`: each call as the HTTP call that it is, and the two streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from starlette.requests import HTTPConnection

from flotilla.core.errors import Refused, Unavailable
from flotilla.rpc import events
from flotilla.rpc import v1_pb2 as pb
from serve import auth, posting, streams
from serve.bodies import PostMessage, checked
from serve.doors import doors_of
from serve.limits.guarded import guarded
from serve.metrics import OPEN_STREAMS
from serve.rpc.calls import Stream, Unary, fields
from serve.rpc.inside import Http
from serve.rpc.reading import segment

GOING_RETRY_S = 0.1


def _path(request: Any, *more: str) -> str:
    return "/".join(("/v1/sessions", segment("session", request.session), *more))


def _open(request: pb.OpenRequest) -> Http:
    body = fields(request, "agent", "channel", "customer", "model")
    try:
        body["metadata"] = MessageToDict(request.metadata)
    except ValueError:  # NaN, an infinity, or a value of no kind
        raise Refused(
            "`metadata` has a value that JSON has not.", field="metadata", next="Send JSON values."
        ) from None
    return Http(method="POST", path="/v1/sessions", body=body)


def _list(request: pb.ListRequest) -> Http:
    return Http(method="GET", path="/v1/sessions", query=fields(request, "limit", "cursor"))


def _list_events(request: pb.ListEventsRequest) -> Http:
    query = {"after": request.after} | fields(request, "limit")
    return Http(method="GET", path=_path(request, "events"), query=query)


_TIMES = ("expires_at", "opened_at", "last_at")


def _session(document: dict[str, Any]) -> pb.Session:
    metadata = document.pop("metadata", {})
    times = {name: document.pop(name) for name in _TIMES if name in document}
    known = pb.Session.DESCRIPTOR.fields_by_name
    made = pb.Session(**{name: value for name, value in document.items() if name in known})
    made.metadata.update(metadata)
    for name, value in times.items():
        getattr(made, name).CopyFrom(events.timestamp(value))
    return made


def _sessions(document: dict[str, Any]) -> pb.ListResponse:
    return pb.ListResponse(
        sessions=[_session(session) for session in document["sessions"]], next=document["next"] or ""
    )


def _events(document: dict[str, Any]) -> pb.ListEventsResponse:
    made = pb.ListEventsResponse()
    for event in document["events"]:
        packed = events.packed(msgspec.json.encode(event))
        packed.after = packed.seq
        made.events.append(packed)
    return made


# -- streams


async def _send(connection: HTTPConnection, request: pb.SendRequest) -> AsyncGenerator[pb.Event]:
    doors, who = doors_of(connection), await auth.identify(connection)
    auth.check_scope(who, "conversations:write")
    actor = who.actor(request.session)
    raw = fields(request, "while_talking") | {"id": request.id, "text": request.text}
    if request.HasField("person"):
        raw["as"] = request.person
    body = checked(PostMessage, raw)
    accepted = await posting.post(connection, doors, who, actor, body, door="Send")
    frames = await guarded(doors, who, streams.turn(doors, actor, accepted))
    async with aclosing(OPEN_STREAMS.counted(frames)) as counted:
        async for frame in counted:
            yield events.event_of(frame) if frame else pb.Event()


async def _follow(connection: HTTPConnection, request: pb.FollowRequest) -> AsyncGenerator[pb.Event]:
    doors, who = doors_of(connection), await auth.identify(connection)
    auth.check_scope(who, "conversations:read")
    actor = who.actor(request.session)
    check_place(request)
    await streams.check_place(doors, actor, request.after)
    live = streams.paused(doors, actor, request.after, request.offset, visitor=who.visitor)
    frames = await guarded(doors, who, live)
    async with aclosing(OPEN_STREAMS.counted(frames)) as counted:
        async for frame in counted:
            yield (event := events.event_of(frame) if frame else pb.Event())
            if event.type == "session.closed":
                return
    raise Unavailable(
        "This gateway is going.", next="Follow again from the last place.", retry_after_s=GOING_RETRY_S
    )


def check_place(request: pb.FollowRequest) -> None:
    for field in ("after", "offset"):
        if getattr(request, field) < 0:
            raise Refused(
                f"`{field}` is below 0.", field=field, next="Send the place of the last event that you saw."
            )


SERVICE = "/flotilla.v1.Conversations/"
UNARY = {
    f"{SERVICE}Open": Unary(pb.OpenRequest, _open, _session),
    f"{SERVICE}Get": Unary(pb.GetRequest, lambda r: Http(method="GET", path=_path(r)), _session),
    f"{SERVICE}List": Unary(pb.ListRequest, _list, _sessions),
    f"{SERVICE}ListEvents": Unary(pb.ListEventsRequest, _list_events, _events),
    f"{SERVICE}Interrupt": Unary(
        pb.InterruptRequest,
        lambda r: Http(method="POST", path=_path(r, "interrupt")),
        lambda document: pb.InterruptResponse(turn=document["turn"]),
    ),
    f"{SERVICE}Close": Unary(pb.CloseRequest, lambda r: Http(method="DELETE", path=_path(r)), _session),
    f"{SERVICE}RenewToken": Unary(
        pb.RenewTokenRequest, lambda r: Http(method="POST", path=_path(r, "token")), _session
    ),
}
STREAMS = {
    f"{SERVICE}Send": Stream(pb.SendRequest, _send),
    f"{SERVICE}Follow": Stream(pb.FollowRequest, _follow),
}
