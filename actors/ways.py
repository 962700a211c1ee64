"""The ways to actors: to the host that owns one, over a link, again at the next owner if need be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from actors import frames
from actors.dedicated import Finder
from actors.link import Link, Links
from actors.roster import Roster
from actors.tickets import Ticket
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError, Moved, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.members import Member

if TYPE_CHECKING:
    from actors.host import Host

RETRY_FIRST_S = 0.02
RETRY_MOST_S = 0.5

T = TypeVar("T")


class NotTaken(Exception):
    """A try that has changed nothing for sure, with what went wrong."""

    def __init__(self, error: FlotillaError) -> None:
        super().__init__(error.detail)
        self.error = error


class Ways:
    """`local` is the host of this process, if it has one: its own actors are reached without a link."""

    def __init__(self, links: Links, roster: Roster, clock: Clock) -> None:
        self.links = links
        self.roster = roster
        self.clock = clock
        self.local: Host | None = None
        self._finder = Finder(roster, links, clock)

    async def patiently(
        self,
        actor: ActorId,
        once: Callable[[int, Member], Awaitable[T]],
        until: float,
        idempotent: bool,
    ) -> T:
        pause_s, sent_to, hops = RETRY_FIRST_S, "", 0
        while True:
            try:
                return await once(hops, await self.find(actor, sent_to))
            except NotTaken as not_taken:
                error: FlotillaError = not_taken.error
            except Moved as moved:
                error = moved
                sent_to, hops = (moved.field or "", hops + 1) if hops == 0 else ("", 0)
                if sent_to:
                    continue
            except Unavailable as unknown:
                if not idempotent:
                    raise
                error = unknown
            sent_to, hops = "", 0
            if self.clock.monotonic() + pause_s > until:
                raise error
            await self.clock.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_MOST_S)

    async def over(self, owner: Member, method: str, body: bytes, timeout_s: float) -> bytes:
        link = await self.link_to(owner)
        try:
            return await link.ask(method, body, timeout_s=timeout_s)
        except Unavailable:
            if link.lost:
                self.roster.suspect(owner)
            raise

    async def link_to(self, owner: Member) -> Link:
        try:
            return await self.links.to(owner.address)
        except Unavailable as error:
            self.roster.suspect(owner)
            raise NotTaken(error) from None

    async def find(self, actor: ActorId, sent_to: str = "") -> Member:
        """Where the actor lives. Raises `NotTaken` while there is no host or, for a dedicated actor, while
        its process is being started."""
        if not self.roster.is_dedicated(actor):
            return self.owner(actor, sent_to)
        try:
            return await self._finder.resolve(actor)
        except Unavailable as error:
            raise NotTaken(error) from None

    def owner(self, actor: ActorId, sent_to: str = "") -> Member:
        """Where hashing says or, if a host has said so, at another. Who trusts that one no more goes where
        it would go without it: there it is taken in, as one that was sent."""
        if sent_to:
            host = self.roster.named("host", sent_to)
            if host is None:
                raise NotTaken(_unknown_host(actor, sent_to))
            if not self.roster.suspects(host):
                return host
        owner = self.roster.owner(actor)
        if owner is None:
            raise NotTaken(no_host())
        return owner

    def is_here(self, owner: Member) -> bool:
        return self.local is not None and owner.name == self.local.name

    def deliver_here(self, frame: frames.AskFrame, ticket: Ticket | None) -> None:
        """Without a link, and in all else as with one."""
        assert self.local is not None
        message = self.local.message(frame.actor, frame.message)
        self.local.deliver(frame.actor, message, ticket, frame.call)


def _unknown_host(actor: ActorId, name: str) -> Unavailable:
    return Unavailable(f"{actor} lives at {name}, which is not known here yet.", retry_after_s=1.0)


def no_host() -> Unavailable:
    return Unavailable("No host is alive.", next="Try again; hosts restart by themselves.", retry_after_s=1.0)
