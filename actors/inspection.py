"""What an operator may ask of a host: what lives here, in which state, and to let it go."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from actors import frames
from actors.serving.standing import Standing
from actors.timing import Histogram
from flotilla.core.effects import Due
from flotilla.core.errors import NotFound, Refused, UnknownActor
from flotilla.core.ids import ActorId

if TYPE_CHECKING:
    from actors.activation import Activation
    from actors.host import Host
    from actors.runtime import Resident

VERSION = version("flotilla")
LISTED_MAX = 1000


class Listed(msgspec.Struct, frozen=True):
    """An activation in a list. `state`: idle, working, leaving."""

    actor: ActorId
    seq: int
    waiting: int
    state: str
    idle_s: float
    followers: int


class AlarmStatus(msgspec.Struct, frozen=True):
    """How late the latest reminder is, how many fail again and again, how many were delivered."""

    lag_s: float
    failing: int
    delivered: int


class KindStatus(msgspec.Struct, frozen=True):
    """`counts` since the host began; `active` is how many are awake."""

    counts: dict[str, int]
    waits: Histogram
    turns: Histogram
    activations: Histogram

    @property
    def active(self) -> int:
        return self.counts.get("activations", 0) - self.counts.get("passivations", 0)


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """What new work finds at a host: `waiting` were let in and have nothing to show yet, of at most `limit`.
    `standing_s` is the smallest wait lately at each queue; `refused` counts by the queue that stood."""

    waiting: int
    limit: float
    standing_s: dict[str, float]
    refused: dict[str, int]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What a host counts. `ready`: actors that have something to do right now; `models`: its way to the
    models, if it has one."""

    host: str
    version: str
    draining: bool
    activations: int
    ready: int
    links: int
    tells_lost: int
    alarm: AlarmStatus | None
    kinds: dict[str, KindStatus]
    models: Standing | None = None
    waits: Waits | None = None


class _Tagged(msgspec.Struct):
    signal: str = ""


class PersonFrame(msgspec.Struct, frozen=True, array_like=True):
    """A person of a tenant, as `Actor.person` calls them."""

    tenant: str
    person: str


class ListFrame(msgspec.Struct, frozen=True, array_like=True):
    """Which activations: of a tenant, of a kind ("" for any), at most so many."""

    tenant: str
    kind: str = ""
    limit: int = 100


async def answer(host: Host, method: str, body: bytes) -> Any:
    match method:
        case "ping":
            return None
        case "status":
            return status(host)
        case "list":
            return listed(host, msgspec.msgpack.decode(body, type=ListFrame))
        case "show":
            return show(host, frames.decode_actor(body))
        case "dedicate":
            if host.spawning is None:
                raise NotFound("This host starts no processes.")
            return await host.spawning.dedicate(frames.decode_actor(body))
        case "forget":
            return forget(host, msgspec.msgpack.decode(body, type=PersonFrame))
        case "release":
            return host.release(frames.decode_actor(body))
        case "drain":
            host.draining = True
            return len(host.active)
        case _:
            raise NotFound(f"A host has no method {method!r}.")


def status(host: Host) -> Status:
    fleet, alarm = host.runtime.fleet, host.alarm
    return Status(
        host=host.name,
        version=VERSION,
        draining=host.draining,
        activations=len(host.active),
        ready=len(host.queue),
        links=fleet.links,
        tells_lost=fleet.tells_lost,
        alarm=alarm and AlarmStatus(alarm.lag_s, alarm.failing, alarm.delivered),
        kinds={resident.kind.name: _kind(resident) for resident in host.runtime.kinds},
        models=host.models() if host.models else None,
        waits=_waits(host),
    )


def _waits(host: Host) -> Waits:
    shedding = host.pressure.shedding
    return Waits(
        waiting=shedding.waiting,
        limit=round(shedding.limit, 1),
        standing_s={name: round(seconds, 4) for name, seconds in shedding.standing_s.items()},
        refused=dict(shedding.counts),
    )


def _kind(resident: Resident) -> KindStatus:
    timing = resident.timing
    return KindStatus(dict(resident.counts), timing.waits, timing.turns, timing.activations)


def replayed(host: Host, frame: frames.ReplayFrame) -> Any:
    """The message of a dead letter. Raises `Refused` for what nobody can send."""
    codec = host.runtime.kinds.of(frame.actor.kind).codec
    tag: str = msgspec.msgpack.decode(frame.message, type=_Tagged).signal
    if tag == Due.__struct_config__.tag:
        raise Refused(
            "It is a reminder, which has fired and is out of the record.",
            next="Have its actor set it again, then discard the letter.",
        )
    kinds_own = get_args(codec.kind.messages) or (codec.kind.messages,)
    if tag not in [message.__struct_config__.tag for message in kinds_own]:
        raise Refused(
            f"{tag!r} is no message of a {codec.kind.name}: it came from the actor's own work.",
            next="Its actor has gone on without it. Discard the letter.",
        )
    try:
        return codec.message(frame.message)
    except msgspec.DecodeError as error:
        raise frames.unreadable(error) from None


def listed(host: Host, wanted: ListFrame) -> list[Listed]:
    """Those with most to do first."""
    mine = [
        a
        for a in host.active.values()
        if a.id.tenant == wanted.tenant and (not wanted.kind or a.id.kind == wanted.kind)
    ]
    mine.sort(key=lambda a: (-a.waiting, a.id))
    return [_listed(host, a) for a in mine[: min(wanted.limit, LISTED_MAX)]]


def _listed(host: Host, a: Activation) -> Listed:
    state = "leaving" if a.leaving else "idle" if a.idle else "working"
    idle_s = round(host.runtime.clock.monotonic() - a.touched, 1)
    return Listed(a.id, a.recorded, a.waiting, state, idle_s, a.followers)


def forget(host: Host, who: PersonFrame) -> int:
    """Lets go of the actors that hold something of a person who was erased; returns how many."""
    theirs = [a for a in host.active.values() if a.id.tenant == who.tenant and a.actor.person == who.person]
    for activation in theirs:
        activation.leave()
    return len(theirs)


def show(host: Host, id: ActorId) -> dict[str, Any]:
    """State, mailbox and tasks of an activation. Raises `UnknownActor` if it sleeps or lives elsewhere."""
    activation = host.active.get(id)
    if activation is None:
        raise UnknownActor(f"{id} is not awake at {host.name}.", next="Ask it something, or see its journal.")
    return {
        "host": host.name,
        "listed": msgspec.to_builtins(_listed(host, activation)),
        "state": msgspec.to_builtins(activation.actor),
        "mailbox": activation.mail(),
        "working_on": activation.working_on(),
    }
