"""What an operator may ask of a host: what lives here, in which state, and to let it go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actors import frames
from flotilla.core.errors import NotFound, UnknownActor
from flotilla.core.ids import ActorId

if TYPE_CHECKING:
    from actors.activation import Activation
    from actors.host import Host

LISTED_MAX = 1000


class Listed(msgspec.Struct, frozen=True):
    """An activation in a list. `state`: idle, working, leaving."""

    actor: ActorId
    seq: int
    waiting: int
    state: str
    idle_s: float
    followers: int


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
        case "release":
            return host.release(frames.decode_actor(body))
        case "drain":
            host.draining = True
            return len(host.active)
        case _:
            raise NotFound(f"A host has no method {method!r}.")


def status(host: Host) -> dict[str, Any]:
    """Counters by kind since the host began, and what it holds now."""
    active: dict[str, int] = {}
    for id in host.active:
        active[id.kind] = active.get(id.kind, 0) + 1
    kinds = {resident.kind.name: dict(resident.counts) for resident in host.runtime.kinds}
    for name, count in active.items():
        kinds[name]["active"] = count
    return {"host": host.name, "draining": host.draining, "activations": len(host.active), "kinds": kinds}


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
