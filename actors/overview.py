"""The fleet as an operator sees it: every host is asked, and what they say is put together.

A host that doesn't answer is left out with a note: half a picture helps more than none.
"""

from __future__ import annotations

import asyncio
from typing import Any, Generic, TypeVar

import msgspec

from actors import frames
from actors.inspection import Listed, ListFrame, PersonFrame, Status
from actors.link import Links
from actors.roster import Roster
from flotilla.core.errors import Conflict, FlotillaError, NotFound, Refused, UnknownActor
from flotilla.core.ids import ActorId
from flotilla.core.members import Member
from flotilla.core.ports import Directory, Pins

ASK_TIMEOUT_S = 2.0
ROLES = ("host", "dedicated")

T = TypeVar("T")


class Gathered(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What each host said, by its name, and a note for each that said nothing."""

    said: dict[str, T]
    notes: list[str]


class Awake(msgspec.Struct, frozen=True, kw_only=True):
    """`more`: there are others that didn't fit."""

    actors: list[tuple[str, Listed]]
    notes: list[str]
    more: bool


class HostSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A host as the directory and, if it answers, the host itself know it."""

    member: Member
    status: Status | None


class Overview:
    """`roles` are those of the roster whose members are hosts."""

    def __init__(
        self,
        links: Links,
        roster: Roster,
        directory: Directory,
        pins: Pins,
        roles: tuple[str, ...] = ROLES,
    ) -> None:
        self._links = links
        self._roster = roster
        self._directory = directory
        self._pins = pins
        self._roles = roles

    # -- looking

    async def awake(self, tenant: str, kind: str = "", limit: int = 100) -> Awake:
        """The actors of a tenant that are awake, those with most to do first."""
        frame = frames.encode(ListFrame(tenant, kind, limit))
        found = await self._gather("list", frame, list[Listed])
        actors = [(host, listed) for host, page in found.said.items() for listed in page]
        actors.sort(key=lambda one: (-one[1].waiting, one[1].actor))
        more = len(actors) > limit or any(len(page) == limit for page in found.said.values())
        return Awake(actors=actors[:limit], notes=found.notes, more=more)

    async def show(self, actor: ActorId) -> Gathered[dict[str, Any]]:
        """State, mailbox and tasks at the host where the actor is awake; at none if it sleeps."""
        return await self._gather("show", frames.encode(actor), dict[str, Any])

    def home(self, actor: ActorId) -> str | None:
        """The host where `actor` lives when it is awake; None if none is up."""
        owner = self._roster.owner(actor)
        return owner.name if owner is not None else None

    async def pinned(self, actor: ActorId) -> str | None:
        return (await self._pins.pins()).get(actor)

    async def hosts(self) -> tuple[list[HostSeen], list[str]]:
        found = await self.statuses()
        seen = [HostSeen(member=host, status=found.said.get(host.name)) for host in self._hosts()]
        return seen, found.notes

    async def statuses(self, timeout_s: float = ASK_TIMEOUT_S) -> Gathered[Status]:
        return await self._gather("status", b"", Status, timeout_s)

    def names(self) -> list[str]:
        """Of all hosts that are believed alive."""
        return [host.name for host in self._hosts()]

    # -- changing

    async def passivate(self, actor: ActorId) -> Gathered[bool]:
        """Whoever has the actor lets go of it after what it handles now; its next message wakes it."""
        return await self._gather("release", frames.encode(actor), bool)

    async def move(self, actor: ActorId, host: str) -> None:
        """Pins `actor` to the host and has all others let go of it. Everybody sends there within two
        seconds, and a host that is asked too soon passes its callers on.

        Raises `NotFound` if no host of that name is up, `Refused` for an actor with a process of its own."""
        if self._roster.is_dedicated(actor):
            raise Refused(f"{actor.key} has a process of its own.", next="Nothing needs to be moved.")
        self._named(host)
        await self._pins.pin(actor, host)
        others = [member for member in self._hosts() if member.name != host]
        await self._gather("release", frames.encode(actor), bool, of=others)

    async def unpin(self, actor: ActorId) -> None:
        await self._pins.unpin(actor)

    async def drain(self, name: str) -> str:
        """Has a host let go of its actors; returns who sees to it: "controller" or "host". The controller
        ends the host when it is empty; without one it stays, empty, until its process is ended.

        Raises `NotFound` if no such host is up, `Conflict` if nobody would be left."""
        host = self._named(name)
        controllers = await self._directory.members("controller")
        if controllers:
            await self._ask(controllers[0], "drain", frames.encode(name))
            return "controller"
        if not [one for one in self._roster.members("host") if one.state == "up" and one.name != name]:
            raise Conflict(
                f"{name} is the only host that is up.", field="host", next="Start another one first."
            )
        await self._ask(host, "drain", b"")
        return "host"

    # -- replicas

    def replicas(self) -> list[Member]:
        """Those that are believed alive."""
        return self._roster.members("model")

    async def drain_replica(self, name: str) -> None:
        """Has a replica finish what it makes and take nothing new; the controller ends it then, and starts
        another if its version's plan wants as many. Raises `NotFound` if there is none of that name."""
        found = {member.name: member for member in self.replicas()}
        if name not in found:
            raise NotFound(
                f"No replica {name!r} is up.", field="name", next=f"Up: {', '.join(found) or 'none'}."
            )
        await self._ask(found[name], "drain", b"")

    # -- asking

    def _hosts(self) -> list[Member]:
        return [member for role in self._roles for member in self._roster.members(role)]

    def _named(self, name: str) -> Member:
        up = [host for host in self._roster.members("host") if host.state == "up"]
        for host in up:
            if host.name == name:
                return host
        names = ", ".join(host.name for host in up) or "none"
        raise NotFound(f"No host {name!r} is up.", field="host", next=f"Up: {names}.")

    async def forget(self, tenant: str, person: str) -> Gathered[int]:
        """Has every host let go of what it remembers of a person."""
        return await self._gather("forget", frames.encode(PersonFrame(tenant, person)), int)

    async def _gather(
        self,
        method: str,
        body: bytes,
        type: type[T],
        timeout_s: float = ASK_TIMEOUT_S,
        of: list[Member] | None = None,
    ) -> Gathered[T]:
        hosts = self._hosts() if of is None else of
        answers = await asyncio.gather(*(self._answer(host, method, body, type, timeout_s) for host in hosts))
        said = {
            host.name: answer[0] for host, answer in zip(hosts, answers, strict=True) if answer[0] is not None
        }
        return Gathered(said=said, notes=[answer[1] for answer in answers if answer[1]])

    async def _answer(
        self, host: Member, method: str, body: bytes, type: type[T], timeout_s: float
    ) -> tuple[T | None, str]:
        try:
            async with asyncio.timeout(timeout_s):
                return msgspec.msgpack.decode(await self._ask(host, method, body), type=type), ""
        except UnknownActor:
            return None, ""
        except (FlotillaError, TimeoutError, msgspec.DecodeError) as error:
            reason = error.detail if isinstance(error, FlotillaError) else f"{error.__class__.__name__}."
            return None, f"{host.name} doesn't answer, so what lives there is missing here: {reason}"

    async def _ask(self, host: Member, method: str, body: bytes) -> bytes:
        link = await self._links.to(host.address)
        return await link.ask(method, body, timeout_s=ASK_TIMEOUT_S)
