"""Models: their versions, their swaps, and what is counted of both sides. See docs/models.md.

Reading wants a tenant's key, changing an operator's: a model is the whole fleet's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from starlette.responses import StreamingResponse

from flotilla.core import swap_facts as swaps
from flotilla.core.errors import FlotillaError, Refused, Unavailable
from flotilla.core.ids import ActorId, is_name, new_id
from flotilla.core.limits import LIMITS
from flotilla.core.swap_views import ModelView
from flotilla.core.tallies import Tallies
from flotilla.core.versions import FLEET, Plan, Version
from serve import model_views as views
from serve import streams
from serve.auth import Principal, needs
from serve.bodies import parse_place
from serve.bodies_models import (
    ResumeBody,
    ServeBody,
    SteerBody,
    SwapBody,
    checked,
    decoded,
    read,
)
from serve.doors import Doors, doors_of
from serve.figures import Recent
from serve.limits.guarded import guarded
from serve.metrics import OPEN_STREAMS
from serve.model_veil import Veil, may_see
from serve.routes.sessions import json
from serve.streams import Paused

router = APIRouter(prefix="/v1/models", tags=["models"])

Reader = Annotated[Principal, needs("models:read")]
Writer = Annotated[Principal, needs("models:write")]

MODELS_MAX = 200
SEQ_MAX = 2**63 - 1
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=256)]


def actor_of(model: str) -> ActorId:
    if not is_name(model) or "@" in model:
        raise Refused(f"{model!r} is no model.", field="model", next="See `flotilla models list`.")
    return ActorId(FLEET, "model", model)


def _by(who: Principal, person: str) -> str:
    return f"{who.tenant}/{person}" if person else who.tenant


def version_id(model: str, version: str) -> str:
    """A version's name alone will do."""
    return version if not version or "@" in version else f"{model}@{version}"


async def view_of(doors: Doors, model: str) -> ModelView:
    """As it is remembered: nothing is read or written for it once the actor is awake."""
    return await doors.fleet.ask(actor_of(model), swaps.Show())


# -- looking


@router.get("")
async def list_models(request: Request, who: Reader) -> Response:
    """All models by name, with who answers and what is being swapped."""
    doors = doors_of(request)
    plans = await doors.board.plans()
    journal = await doors.journal()
    recorded = await journal.actors(FLEET, "model", limit=MODELS_MAX)
    names = sorted({actor.name for actor, _ in recorded} | set(plans))[:MODELS_MAX]
    asked = await asyncio.gather(*(view_of(doors, name) for name in names), return_exceptions=True)
    found = [_listed(doors, who, *line) for line in zip(names, asked, map(plans.get, names), strict=True)]
    return json({"models": [line for line in found if line], "more": len(recorded) == MODELS_MAX})


def _listed(
    doors: Doors, who: Principal, name: str, asked: ModelView | BaseException, plan: Plan | None
) -> dict[str, Any] | None:
    """None for what is not for this tenant. While a model's actor is out of reach, what its plan tells."""
    if isinstance(asked, BaseException) and not isinstance(asked, FlotillaError):
        raise asked
    view = None if isinstance(asked, BaseException) else asked
    plan = view.plan if view else plan
    versions = (view or plan or Plan(model=name, revision=0)).versions
    seen = {id for id, version in versions.items() if may_see(version, who)}
    if versions and not seen:
        return None
    return views.listed(name, plan, seen, view.swap if view else None, doors.roster)


@router.get("/{model}")
async def show_model(request: Request, who: Reader, model: str) -> Response:
    """What its record tells, its replicas with their load, and what was counted of each version lately:
    `figures` by version, of the last `span_s` seconds (null: since the processes began)."""
    return json(await _seen(request, who, await view_of(doors_of(request), model)))


async def _seen(request: Request, who: Principal, view: ModelView) -> dict[str, Any]:
    doors, notes, veil = doors_of(request), list[str](), Veil(view, who)
    counted: Tallies = {}
    span_s: float | None = None
    try:
        counted, span_s = _recent(request).take(doors.clock.monotonic(), await doors.tallies.pages())
    except Unavailable as error:
        notes.append(f"The figures are out of reach: {error.detail}")
    replicas = views.replicas(doors.roster, [id for id in view.versions if not veil.hides(id)])
    return views.shown(view, veil, replicas, counted, span_s) | {"notes": notes}


def _recent(request: Request) -> Recent:
    state = request.app.state
    if not hasattr(state, "recent_figures"):
        state.recent_figures = Recent()
    return state.recent_figures


@router.get("/{model}/events", response_class=StreamingResponse, responses=streams.DECLARED)
async def stream_events(
    request: Request,
    who: Reader,
    model: str,
    after: str | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """SSE: what is recorded of the model, in order, and between it, once a second while a swap is watched,
    `swap.figures`. `Last-Event-ID` wins over `after`; both are a `seq`. It ends when the client does."""
    field = "Last-Event-ID" if last_event_id else "after"
    seq, _ = parse_place(last_event_id or after, field=field)
    doors = doors_of(request)
    frames = await guarded(doors, who, await watch(doors, who, model, seq, field=field), quiet=True)
    return streams.sse(OPEN_STREAMS.counted(frames))


async def watch(
    doors: Doors, who: Principal, model: str, after: int, *, field: str
) -> AsyncGenerator[Paused]:
    """The events with `seq > after`, from now until the reader is gone."""
    view = await view_of(doors, model)
    if after > view.seq:
        raise Refused(
            f"`{field}` is {after}, but the last event is {view.seq}.",
            field=field,
            next="Send the last id that you have seen.",
        )
    return _frames(doors, actor_of(model), after, Veil(view, who))


async def _frames(doors: Doors, actor: ActorId, after: int, veil: Veil) -> AsyncGenerator[Paused]:
    async with aclosing(streams.reading(doors, actor, after)) as frames:
        async for frame in frames:
            if frame is None:
                yield None
            elif told := views.live(frame.json, veil):
                yield msgspec.structs.replace(frame, json=told, id=frame.id.partition(":")[0])


@router.get("/{model}/history")
async def list_events(
    request: Request,
    who: Reader,
    model: str,
    after: Annotated[int, Query(ge=0, le=SEQ_MAX)] = 0,
    limit: Annotated[int, Query(ge=1, le=LIMITS.page_max)] = LIMITS.page_max,
) -> Response:
    """What is recorded of the model with `seq > after`, in order."""
    doors, actor = doors_of(request), actor_of(model)
    veil = Veil(await view_of(doors, model), who)  # an unknown model is 404, not an empty page
    page = await (await doors.journal()).read(actor, after=after, limit=limit)
    found = [views.event(views.recorded(stored), veil) for stored in page]
    return json({"events": [event for event in found if event]})


# -- changing


@router.post("/{model}/versions", status_code=201)
async def add_version(request: Request, who: Writer, model: str) -> Response:
    """Registers a version: the fields of `Version`, and `by`. Adding the same one again changes nothing."""
    actor = actor_of(model)
    raw = decoded(await request.body())
    by = checked({"by": raw.pop("by", "")}, SteerBody).by
    version = checked({"model": model} | raw, Version)
    view = await doors_of(request).fleet.ask(actor, swaps.AddVersion(version=version, by=_by(who, by)))
    return json(await _seen(request, who, view), 201)


@router.delete("/{model}/versions/{name}")
async def drop_version(request: Request, who: Writer, model: str, name: str, by: str = "") -> Response:
    """Forgets a version that nobody needs: neither the one that answers, nor one of a swap, nor the base of
    an adapter. Its name is never used again. Dropping it again changes nothing."""
    by = checked({"by": by}, SteerBody).by
    drop = swaps.DropVersion(version=version_id(model, name), by=_by(who, by))
    view = await doors_of(request).fleet.ask(actor_of(model), drop)
    return json(await _seen(request, who, view))


@router.post("/{model}/serve")
async def serve(request: Request, who: Writer, model: str) -> Response:
    """Has the model answer with its first version, and sets the number of replicas and the fallbacks."""
    body = await read(request, ServeBody)
    message = swaps.Serve(
        version=version_id(model, body.version),
        least=body.least,
        most=body.most,
        cpus=body.cpus,
        gpus=body.gpus,
        fallbacks=body.fallbacks,
        by=_by(who, body.by),
    )
    view = await doors_of(request).fleet.ask(actor_of(model), message)
    return json(await _seen(request, who, view))


@router.post("/{model}/swaps", status_code=202)
async def begin_swap(request: Request, who: Writer, model: str, idempotency_key: Key = None) -> Response:
    """Begins a swap to another version. With an `Idempotency-Key` it is begun once, however often it is
    sent."""
    body = await read(request, SwapBody)
    begin = swaps.BeginSwap(
        swap=_swap_id(model, idempotency_key),
        to=version_id(model, body.to),
        order=body.order,
        by=_by(who, body.by),
    )
    view = await doors_of(request).fleet.ask(actor_of(model), begin)
    return json(await _seen(request, who, view), 202)


def _swap_id(model: str, key: str | None) -> str:
    if key is None:
        return new_id("sw")
    return "sw_" + hashlib.sha256(f"{model}\n{key}".encode()).hexdigest()[:26]


@router.post("/{model}/swap/pause")
async def pause(request: Request, who: Writer, model: str) -> Response:
    """Holds the swap where it is: the shares stay, and a burning budget still turns it back."""
    body = await read(request, SteerBody)
    return await _steer(request, who, model, swaps.Pause(by=_by(who, body.by)))


@router.post("/{model}/swap/resume")
async def resume(request: Request, who: Writer, model: str) -> Response:
    """On from where it was held; from the end of a step that waits, to the next; from a promotion, to the
    end of the old version. With `at`, the swap's own `at` as it was shown, one that is sent twice goes on once."""
    body = await read(request, ResumeBody)
    at = body.at or await _at(doors_of(request), model)
    return await _steer(request, who, model, swaps.Resume(at=at, by=_by(who, body.by)))


async def _at(doors: Doors, model: str) -> int:
    """Where the swap is: the message may be sent again on its way to the actor."""
    swap = (await view_of(doors, model)).swap
    return swap.at if swap else 0


@router.post("/{model}/swap/promote")
async def promote(request: Request, who: Writer, model: str) -> Response:
    """All conversations to the candidate, now."""
    body = await read(request, SteerBody)
    return await _steer(request, who, model, swaps.Promote(by=_by(who, body.by)))


@router.post("/{model}/swap/rollback")
async def roll_back(request: Request, who: Writer, model: str) -> Response:
    """All conversations to the old version, now; also for a while after it was promoted."""
    body = await read(request, SteerBody)
    return await _steer(request, who, model, swaps.RollBack(reason=body.reason, by=_by(who, body.by)))


Steering = swaps.Pause | swaps.Resume | swaps.Promote | swaps.RollBack


async def _steer(request: Request, who: Principal, model: str, message: Steering) -> Response:
    view = await doors_of(request).fleet.ask(actor_of(model), message)
    return json(await _seen(request, who, view))
