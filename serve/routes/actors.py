"""What an operator sees and does: actors wherever they are, their journals, dead letters, hosts.

Everything is of the caller's tenant; what touches the whole fleet wants an operator's key.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response

from actors.inspection import Listed
from actors.overview import HostSeen
from flotilla.core.errors import (
    DeadlinePassed,
    FlotillaError,
    NotFound,
    Refused,
    Unavailable,
    UnknownActor,
    error_of,
)
from flotilla.core.ids import ActorId, actor_of, is_name
from flotilla.core.journal import Letter, Stored
from flotilla.core.limits import LIMITS
from flotilla.views.events import stamp
from serve.auth import Principal, needs
from serve.bodies import JournalPage, MoveBody
from serve.bodies import Stored as StoredText
from serve.doors import Doors, doors_of
from serve.routes.sessions import json

router = APIRouter(prefix="/v1", tags=["operating"])

Reader = Annotated[Principal, needs("actors:read")]
Writer = Annotated[Principal, needs("actors:write")]
Operator = Annotated[Principal, needs("operator")]

LAST_FACTS = 10
LetterId = Annotated[StoredText, Path(max_length=128)]
Limit = Annotated[int, Query(ge=1, le=LIMITS.page_max)]


def _actor(who: Principal, key: str) -> ActorId:
    """Raises `Refused` unless `key` is KIND/NAME."""
    actor = actor_of(who.tenant, key)
    if not (is_name(actor.kind) and is_name(actor.name)):
        raise Refused(f"{key!r} is no actor.", field="actor", next="Name it as KIND/NAME.")
    return actor


# -- actors


@router.get("/actors")
async def list_actors(request: Request, who: Reader, kind: str = "", limit: Limit = 100) -> Response:
    """Those that are awake, those with most to do first. `notes` names hosts that did not answer."""
    awake = await doors_of(request).overview.awake(who.tenant, kind, limit)
    actors = [_listed(host, listed) for host, listed in awake.actors]
    return json({"actors": actors, "more": awake.more, "notes": awake.notes})


def _listed(host: str, listed: Listed) -> dict[str, Any]:
    return {**msgspec.structs.asdict(listed), "actor": listed.actor.key, "host": host}


@router.get("/actors/{kind}/{name}")
async def show_actor(request: Request, who: Reader, kind: str, name: str) -> Response:
    """What it holds and does if it is awake (`awake` is null if not), and what the record tells of it."""
    doors, actor = doors_of(request), _actor(who, f"{kind}/{name}")
    found = await doors.overview.show(actor)
    awake = next(iter(found.said.values()), None)
    told = await _told(doors, actor)
    if awake is None and not told["seq"] and not told["notes"] and not found.notes:
        raise UnknownActor(f"There is no {actor.key}.", next="See `flotilla actors list`, or check the name.")
    return json(
        {
            "actor": actor.key,
            "home": doors.overview.home(actor),
            "awake": awake,
            **told,
            "notes": [*found.notes, *told["notes"]],
        }
    )


async def _told(doors: Doors, actor: ActorId) -> dict[str, Any]:
    """What the stores tell; while one is down, a note."""
    told: dict[str, Any] = {"pinned": None, "seq": 0, "last": [], "reminders": [], "notes": []}
    try:
        told["pinned"] = await doors.overview.pinned(actor)
        journal = await doors.journal()
        snapshot, entries = await journal.load(actor)
        told["seq"] = entries[-1].seq if entries else snapshot.seq if snapshot else 0
        last = await journal.read(actor, after=max(0, told["seq"] - LAST_FACTS), limit=LAST_FACTS)
        told["last"] = [_entry(stored) for stored in last]
        told["reminders"] = await journal.reminders(actor)
    except Unavailable as error:
        told["notes"].append(f"The record is out of reach: {error.detail}")
    return told


def _entry(stored: Stored, *, body: bool = False) -> dict[str, Any]:
    entry = stored.entry
    shown = {"seq": stored.seq, "at": stamp(stored.at), "type": entry.type, "version": entry.version}
    return shown | ({"body": msgspec.Raw(entry.body)} if body else {})


@router.get("/actors/{kind}/{name}/journal")
async def read_journal(
    request: Request,
    who: Reader,
    kind: str,
    name: str,
    page: Annotated[JournalPage, Query()],
) -> Response:
    """The facts with `seq > after`, in order; with `bodies` also what they say."""
    actor = _actor(who, f"{kind}/{name}")
    found = await (await doors_of(request).journal()).read(actor, after=page.after, limit=page.limit)
    if not found and not page.after:
        raise UnknownActor(f"Nothing is recorded of {actor.key}.", next="Check kind and name.")
    return json({"facts": [_entry(stored, body=page.bodies) for stored in found]})


@router.post("/actors/{kind}/{name}/passivate")
async def passivate(request: Request, who: Writer, kind: str, name: str) -> Response:
    """Puts it to sleep after what it handles now; what waits for it, or its next message, wakes it."""
    actor = _actor(who, f"{kind}/{name}")
    found = await doors_of(request).overview.passivate(actor)
    hosts = [host for host, was_there in found.said.items() if was_there]
    return json({"actor": actor.key, "hosts": hosts, "notes": found.notes})


@router.post("/actors/{kind}/{name}/move")
async def move(request: Request, who: Operator, kind: str, name: str, body: MoveBody) -> Response:
    """Has it live at one host from now on, until it is unpinned or that host is gone."""
    actor = _actor(who, f"{kind}/{name}")
    await doors_of(request).overview.move(actor, body.host)
    return json({"actor": actor.key, "host": body.host})


@router.delete("/actors/{kind}/{name}/pin")
async def unpin(request: Request, who: Operator, kind: str, name: str) -> Response:
    """Has it live where hashing puts it."""
    doors, actor = doors_of(request), _actor(who, f"{kind}/{name}")
    was = await doors.overview.pinned(actor)
    await doors.overview.unpin(actor)
    return json({"actor": actor.key, "was": was})


# -- dead letters


class _Tagged(msgspec.Struct):
    signal: str = ""


@router.get("/letters")
async def list_letters(
    request: Request, who: Reader, actor: str | None = None, limit: Limit = 100
) -> Response:
    """Messages that broke their actors and were set aside, oldest first; without what they say."""
    of = None if actor is None else _actor(who, actor)
    letters = await doors_of(request).letters()
    found = await letters.list(who.tenant, actor=of, limit=limit)
    return json({"letters": [_letter(letter) for letter in found]})


def _letter(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "actor": letter.actor.key,
        "at": stamp(letter.at),
        "message": msgspec.msgpack.decode(letter.message, type=_Tagged).signal,
        "problem": letter.problem,
        "tries": letter.tries,
    }


@router.post("/letters/{id}/replay")
async def replay(request: Request, who: Writer, id: LetterId) -> Response:
    """Sends its message to its actor again. Once the actor has taken it the letter is gone; else it stays
    and the problem says why."""
    doors = doors_of(request)
    letters = await doors.letters()
    letter = await letters.read(who.tenant, id)
    if letter is None:
        raise _no_letter(id)
    try:
        await doors.fleet.replay(letter)
    except FlotillaError as error:
        raise _stays(letter, error) from None
    await letters.remove(who.tenant, id)
    return json({"letter": id, "actor": letter.actor.key, "outcome": "taken"})


def _stays(letter: Letter, error: FlotillaError) -> FlotillaError:
    """The actor's own refusal, and what became of the letter."""
    said = f"{error.detail} The letter {letter.id} stays."
    next = error.next
    if isinstance(error, Unavailable | DeadlinePassed):
        said += " Nobody can say whether the actor has taken it."
        next = f"See `flotilla actors journal {letter.actor.key}`, then replay or discard it."
    return error_of(msgspec.structs.replace(error.problem(), detail=said, next=next))


@router.delete("/letters/{id}", status_code=204)
async def discard(request: Request, who: Writer, id: LetterId) -> Response:
    letters = await doors_of(request).letters()
    if await letters.remove(who.tenant, id) is None:
        raise _no_letter(id)
    return Response(status_code=204)


def _no_letter(id: str) -> NotFound:
    return NotFound(f"There is no letter {id!r}.", field="letter", next="See `flotilla actors letters`.")


# -- hosts


@router.get("/hosts")
async def list_hosts(request: Request, who: Operator) -> Response:
    """Every host that is believed alive; `answers` is false for one that says nothing."""
    hosts, notes = await doors_of(request).overview.hosts()
    return json({"hosts": [_host(seen) for seen in hosts], "notes": notes})


def _host(seen: HostSeen) -> dict[str, Any]:
    member, status = seen.member, seen.status
    return {
        "name": member.name,
        "role": member.role,
        "state": member.state,
        "answers": status is not None,
        "version": status.version if status else None,
        "activations": status.activations if status else int(member.load.get("activations", 0)),
        "ready": status.ready if status else None,
        "busy": member.load.get("busy", 0.0),
        "links": status.links if status else None,
        "reminder_lag_s": status.alarm.lag_s if status and status.alarm else None,
        "address": member.address,
    }


@router.post("/hosts/{name}/drain", status_code=202)
async def drain(request: Request, who: Operator, name: str) -> Response:
    """Has the host let go of its actors. `by` is who sees to it: the controller also ends the host when it
    is empty, and starts another if too few are left."""
    return json({"host": name, "by": await doors_of(request).overview.drain(name)}, 202)


# -- replicas


@router.get("/replicas")
async def list_replicas(request: Request, who: Operator) -> Response:
    """Every replica of a model that is believed alive, whatever it serves."""
    found = doors_of(request).overview.replicas()
    return json({"replicas": [{"name": m.name, "state": m.state, "address": m.address} for m in found]})


@router.post("/replicas/{name}/drain", status_code=202)
async def drain_replica(request: Request, who: Operator, name: str) -> Response:
    """202. It finishes what it makes and takes nothing new; then the controller ends it, and starts another
    if as many are wanted."""
    await doors_of(request).overview.drain_replica(name)
    return json({"replica": name}, 202)
