"""`flotilla.v1.Models`: looking, swapping, steering and watching."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from google.protobuf.json_format import MessageToDict
from starlette.requests import HTTPConnection

from flotilla.core.errors import Refused
from flotilla.core.limits import LIMITS
from flotilla.rpc import events
from flotilla.rpc import v1_pb2 as pb
from serve import auth
from serve.doors import doors_of
from serve.limits.guarded import guarded
from serve.metrics import OPEN_STREAMS
from serve.routes import models
from serve.rpc.calls import Stream, Unary
from serve.rpc.inside import Http
from serve.rpc.reading import segment

_STEERING = {
    pb.SteerRequest.PAUSE: "pause",
    pb.SteerRequest.RESUME: "resume",
    pb.SteerRequest.PROMOTE: "promote",
    pb.SteerRequest.ROLLBACK: "rollback",
}
_SWAP_FIELDS = ("id", "to", "stage", "step", "steps", "at", "paused", "waits", "reason")


def _path(request: Any, *more: str) -> str:
    return "/".join(("/v1/models", segment("model", request.model), *more))


def _swap(request: pb.SwapRequest) -> Http:
    body: dict[str, Any] = {"to": request.to, "by": request.by}
    if request.HasField("order"):
        try:
            body["order"] = MessageToDict(request.order)
        except ValueError:
            raise Refused(
                "`order` has a value that JSON has not.", field="order", next="Send JSON values."
            ) from None
    return Http(method="POST", path=_path(request, "swaps"), body=body)


def _steer(request: pb.SteerRequest) -> Http:
    action = _STEERING.get(request.action)
    if action is None:
        raise Refused(
            f"`action` {request.action} is none.",
            field="action",
            next=f"One of {', '.join(_STEERING.values())}.",
        )
    body: dict[str, Any] = {"by": request.by}
    body |= {"at": request.at} if action == "resume" else {"reason": request.reason}
    return Http(method="POST", path=_path(request, "swap", action), body=body)


# -- answers


def _lines(document: dict[str, Any]) -> pb.ListModelsResponse:
    known = pb.ModelLine.DESCRIPTOR.fields_by_name
    return pb.ListModelsResponse(
        models=[
            pb.ModelLine(**{name: value for name, value in line.items() if name in known})
            for line in document["models"]
        ],
        more=document["more"],
    )


def _model(document: dict[str, Any]) -> pb.Model:
    serving, swap = document.get("serving") or {}, document.get("swap")
    made = pb.Model(name=document["name"], seq=document["seq"], stable=serving.get("stable"))
    if swap:
        known = {name: swap[name] for name in _SWAP_FIELDS}
        made.swap.CopyFrom(pb.SwapState(from_version=swap["from"], **known))
    made.document.update(document)
    return made


async def _watch(connection: HTTPConnection, request: pb.WatchRequest) -> AsyncGenerator[pb.Event]:
    who = await auth.identify(connection)
    auth.check_key(who)
    auth.check_scope(who, "models:read")
    if request.after < 0:
        raise Refused("`after` is below 0.", field="after", next="Send the last seq that you have seen.")
    doors = doors_of(connection)
    frames = await models.watch(doors, who, request.model, request.after, field="after")
    async with aclosing(OPEN_STREAMS.counted(await guarded(doors, who, frames))) as counted:
        async for frame in counted:
            yield events.event_of(frame) if frame else pb.Event()


SERVICE = "/flotilla.v1.Models/"
UNARY = {
    f"{SERVICE}List": Unary(pb.ListModelsRequest, lambda _: Http(method="GET", path="/v1/models"), _lines),
    f"{SERVICE}Get": Unary(pb.GetModelRequest, lambda r: Http(method="GET", path=_path(r)), _model),
    f"{SERVICE}Swap": Unary(pb.SwapRequest, _swap, _model, LIMITS.models_body_bytes_max),
    f"{SERVICE}Steer": Unary(pb.SteerRequest, _steer, _model),
}
STREAMS = {f"{SERVICE}Watch": Stream(pb.WatchRequest, _watch)}
