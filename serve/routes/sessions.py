"""Conversations over HTTP: open, post, read, interrupt, close."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response

from flotilla.core import signals
from flotilla.core.agents import DEFAULT_AGENT
from flotilla.core.errors import Conflict, NotFound, Refused
from flotilla.core.generation import Origin
from flotilla.core.ids import ActorId, new_id
from flotilla.core.limits import LIMITS
from flotilla.core.ports import Journal
from flotilla.views import events
from flotilla.views.sessions import listed, recorded
from serve import auth, posting, streams
from serve.auth import Principal, needs
from serve.bodies import Handoff, NoteBody, OpenSession, PostMessage, Stored, check_metadata, check_text
from serve.doors import Doors, doors_of
from serve.limits.guarded import guarded
from serve.limits.headers import limited

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])

Reader = Annotated[Principal, needs("conversations:read", visitors=True)]
Writer = Annotated[Principal, needs("conversations:write", visitors=True)]


def json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


@router.post("", status_code=201)
async def open_session(
    request: Request,
    who: Annotated[Principal, needs("conversations:write")],
    body: OpenSession,
    idempotency_key: Annotated[str | None, Header(max_length=256)] = None,
) -> Response:
    """Opens a session; with an `Idempotency-Key`, the same session for 24 h."""
    doors = doors_of(request)
    check_metadata(body.metadata)
    if body.model:
        doors.model.choose(Origin(tenant=who.tenant), body.model)  # raises if there is none
    await limited(request, doors.limits.opening(who))
    name = await _session_name(doors, who.tenant, idempotency_key, body)
    view = await doors.fleet.ask(who.actor(name), opening(body))
    return json(with_token(doors, who, view), 201)


def opening(body: OpenSession) -> signals.Open:
    return signals.Open(
        agent=body.agent or DEFAULT_AGENT,
        channel=body.channel,
        customer=body.customer,
        metadata=body.metadata,
        model=body.model or "",
    )


def with_token(doors: Doors, who: Principal, view: signals.SessionView) -> dict[str, Any]:
    """The session, and a token that its visitor's browser may have."""
    token, until = auth.issue(doors.settings, who.tenant, view.id, who.key)
    expires_at = events.stamp(datetime.fromtimestamp(until, UTC))
    return msgspec.to_builtins(view) | {"token": token, "expires_at": expires_at}


async def _session_name(doors: Doors, tenant: str, key: str | None, body: OpenSession) -> str:
    name = new_id("s")
    if key is None:
        return name
    digest = hashlib.sha256(body.model_dump_json().encode()).hexdigest()[:16]
    known, _, first = (await doors.once.claim(tenant, f"open:{key}", f"{name} {digest}")).partition(" ")
    if first != digest:
        raise Conflict(
            "This Idempotency-Key came with another body before.",
            field="Idempotency-Key",
            next="Use a new key for a new request.",
        )
    return known


@router.get("")
async def list_sessions(
    request: Request,
    who: Annotated[Principal, needs("conversations:read")],
    limit: Annotated[int, Query(ge=1, le=LIMITS.page_max)] = 50,
    cursor: Annotated[Stored | None, Query(max_length=128)] = None,
) -> Response:
    """Newest first. `next` is the cursor of the page after this one, null on the last."""
    journal = await doors_of(request).journal()
    found = await journal.actors(who.tenant, "session", before=cursor, limit=limit)
    following = found[-1][0].name if len(found) == limit else None
    return json({"sessions": [listed(actor, ends) for actor, ends in found], "next": following})


@router.get("/{session}")
async def get_session(request: Request, who: Reader, session: str) -> Response:
    return json(await doors_of(request).fleet.ask(who.actor(session), signals.Describe()))


@router.delete("/{session}")
async def close_session(request: Request, who: Writer, session: str) -> Response:
    """Its tokens are void from now on."""
    doors, actor = doors_of(request), who.actor(session)
    view = await doors.fleet.ask(actor, signals.Close())
    await doors.revocations.tell_closed(actor)
    return json(view)


@router.post("/{session}/token", status_code=201)
async def renew_token(request: Request, who: Writer, session: str) -> Response:
    """Another token for the session's visitor, by a key or by a token that is still good: the session, with
    `token` and `expires_at`. None is given for a closed session."""
    doors = doors_of(request)
    view = await doors.fleet.ask(who.actor(session), signals.Describe())
    if view.state == "closed":
        raise Conflict("The session is closed.", field="session", next="Open a new one.")
    return json(with_token(doors, who, view), 201)


@router.post("/{session}/interrupt")
async def interrupt(request: Request, who: Writer, session: str) -> Response:
    """Stops the running reply; what was said stays. `turn` is null if nothing was running."""
    return json(await doors_of(request).fleet.ask(who.actor(session), signals.Interrupt()))


@router.post("/{session}/messages", status_code=202, responses=streams.DECLARED_OR_JSON)
async def post_message(
    request: Request, who: Writer, session: str, body: PostMessage, wait: bool = False
) -> Response:
    """202 `{seq, turn}` once the message is in the record; with `?wait=true` 200 and the finished
    reply; with `Accept: text/event-stream` the events of its turn. `turn` is null if a person answers.

    With `as` it is what that person says to the customer, who must have accepted the session."""
    doors, actor = doors_of(request), who.actor(session)
    accepted = await posting.post(request, doors, who, actor, body, door="POST message")
    if body.person is None and "text/event-stream" in request.headers.get("accept", ""):
        frames = streams.turn(doors, actor, accepted)
        return streams.sse(await guarded(doors, who, frames, quiet=True))
    if wait and accepted.turn:
        return await _reply(doors, actor, accepted)
    return json({"seq": accepted.seq, "turn": accepted.turn or None}, 202)


async def _reply(doors: Doors, actor: ActorId, accepted: signals.Accepted) -> Response:
    async for frame in streams.unpaused(streams.turn(doors, actor, accepted)):
        if frame.offset is None and events.open_envelope(frame.json).type in events.TURN_ENDS:
            return Response(frame.json, media_type="application/json")
    raise NotFound("The turn has no end in the record.")


@router.post("/{session}/notes", status_code=202)
async def add_note(
    request: Request, who: Annotated[Principal, needs("conversations:write")], session: str, body: NoteBody
) -> Response:
    """202 `{seq}`. For other persons and programs; the customer never sees it."""
    check_text(body.text)
    check_text(body.person, field="person")
    note = signals.Note(person=body.person, id=body.id, text=body.text)
    accepted = await doors_of(request).fleet.ask(who.actor(session), note)
    return json({"seq": accepted.seq}, 202)


@router.post("/{session}/handoff")
async def handoff(request: Request, who: Writer, session: str, body: Handoff) -> Response:
    """Asks for a person, takes the session over from its agent, or gives it back; answers with the
    session. A visitor may ask for a person and no more."""
    return json(await doors_of(request).fleet.ask(who.actor(session), _handed(who, body)))


def _handed(who: Principal, body: Handoff) -> signals.RequestPerson | signals.Accept | signals.Return:
    check_text(body.reason, field="reason")
    if body.action == "request":
        return signals.RequestPerson(reason=body.reason)
    auth.check_key(who)
    if body.person is None:
        raise Refused(
            f"`person` is needed to {body.action}.", field="person", next="Send the name of the person."
        )
    check_text(body.person, field="person")
    message = signals.Accept if body.action == "accept" else signals.Return
    return message(person=body.person)


@router.get("/{session}/events")
async def list_events(
    request: Request,
    who: Reader,
    session: str,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Annotated[int, Query(ge=1, le=LIMITS.page_max)] = LIMITS.page_max,
) -> Response:
    """The durable events, in order; for a visitor without what is not for the customer."""
    doors, actor = doors_of(request), who.actor(session)
    found = await _visible(await doors.journal(), actor, after, limit, visitor=who.visitor)
    if not found:
        await doors.fleet.ask(actor, signals.Describe())  # an unknown session is 404, not an empty page
    return json({"events": found})


async def _visible(
    journal: Journal, actor: ActorId, after: int, limit: int, *, visitor: bool
) -> list[dict[str, Any]]:
    """A page is only short at the end, whatever was left out of it: a client stops at a short one."""
    hidden = events.NOT_FOR_VISITORS if visitor else frozenset[str]()
    found: list[dict[str, Any]] = []
    while True:
        page = await journal.read(actor, after=after, limit=limit)
        shown = [events.event(recorded(stored)) for stored in page]
        found += [event for event in shown if event["type"] not in hidden]
        if len(page) < limit or len(found) >= limit:
            return found[:limit]
        after = page[-1].seq
