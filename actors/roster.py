"""Who is in the fleet, as one process sees it: refreshed every second, kept when the directory is down."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

from actors import placement
from actors.looking import keep_looking
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError
from flotilla.core.ids import ActorId
from flotilla.core.members import Member
from flotilla.core.ports import Directory, Pins

REFRESH_EVERY_S = 1.0
# A member whose link broke is passed over for this long, unless it comes back in a new life first.
SUSPECT_FOR_S = 3.0
# While the directory was down nobody could beat: who is missing right after it is given time to.
FORGIVE_FOR_S = 3.0
# Owners that are remembered; about 200 bytes each.
OWNERS_KEPT = 100_000


class Roster:
    """`version` counts the changes of who is there, in which state, trusted or not, and of the pins: while
    it stays the same, `owner` says the same. `dedicated` names the kinds whose actors have processes of
    their own; they are found if the role "dedicated" is among the roles."""

    def __init__(
        self,
        directory: Directory,
        clock: Clock,
        log: Any,
        *roles: str,
        pins: Pins | None = None,
        dedicated: Collection[str] = (),
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._log = log
        self._members: dict[str, list[Member]] = {role: [] for role in roles}
        self._pins = pins
        self._dedicated = frozenset(dedicated)
        self._alone: dict[str, Member] = {}
        self._pinned: Mapping[ActorId, str] = {}
        self._suspects: dict[str, float] = {}
        self._forgive_until = 0.0
        self._on_gone: list[Callable[[str], None]] = []
        self._owner = lru_cache(OWNERS_KEPT)(self._place)
        self.version = 0
        self.changed_at = -math.inf  # monotonic seconds

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(members)} {role}" for role, members in self._members.items())
        return f"<Roster {self.version}: {counts}, {len(self._suspects)} suspect, {len(self._pinned)} pins>"

    def on_gone(self, tell: Callable[[str], None]) -> None:
        """`tell(address)` is called when nobody of the fleet is at an address any more."""
        self._on_gone.append(tell)

    # -- who is there

    def members(self, role: str) -> list[Member]:
        """Those that are believed alive; the suspects too when nobody else is left."""
        known, now = self._members[role], self._clock.monotonic()
        trusted = [member for member in known if self._suspects.get(member.life, 0.0) <= now]
        return trusted or known

    def suspects(self, member: Member) -> bool:
        return self._suspects.get(member.life, 0.0) > self._clock.monotonic()

    def named(self, role: str, name: str) -> Member | None:
        """Trusted or not."""
        return next((member for member in self._members[role] if member.name == name), None)

    def suspect(self, member: Member) -> None:
        fresh = member.life not in self._suspects
        self._suspects[member.life] = self._clock.monotonic() + SUSPECT_FOR_S
        if fresh:
            self._changed()

    def _trust_again(self) -> None:
        """Ends the suspicions whose time is up."""
        now = self._clock.monotonic()
        over = [life for life, until in self._suspects.items() if until <= now]
        for life in over:
            del self._suspects[life]
        if over:
            self._changed()

    # -- who owns what

    def owner(self, actor: ActorId) -> Member | None:
        """Where `actor` lives; None if no host is up, or if it is dedicated and its process isn't there.
        About 0.2 µs when asked again."""
        if self._suspects:
            self._trust_again()
        return self._owner(actor)

    def _place(self, actor: ActorId) -> Member | None:
        if actor.kind in self._dedicated:
            return self._alone.get(str(actor))
        return self.pooled_owner(actor)

    def is_dedicated(self, actor: ActorId) -> bool:
        return actor.kind in self._dedicated

    def pooled_owner(self, actor: ActorId) -> Member | None:
        """The host that would own `actor` if it were not dedicated; None if no host is up."""
        trusted, known = self.members("host"), self._members["host"]
        return placement.owner(actor, trusted, self._pinned) or placement.owner(actor, known, self._pinned)

    def _changed(self) -> None:
        self.version += 1
        self.changed_at = self._clock.monotonic()
        self._owner.cache_clear()

    # -- keeping up

    async def refresh(self) -> None:
        """Raises `Unavailable` if the directory is down; what was known stays known."""
        try:
            found = {role: await self._directory.members(role) for role in self._members}
        except FlotillaError:
            self._forgive_until = self._clock.monotonic() + FORGIVE_FOR_S
            raise
        pinned = await self._read_pins()
        if self._clock.monotonic() < self._forgive_until:
            found = {role: _with(members, self._members[role]) for role, members in found.items()}
        self._take(found, pinned)

    async def _read_pins(self) -> Mapping[ActorId, str]:
        """The last known ones while their store is down."""
        if self._pins is None:
            return self._pinned
        try:
            return await self._pins.pins()
        except FlotillaError as error:
            self._log.warning("pins.stale", reason=error.detail)
            return self._pinned

    def _take(self, found: dict[str, list[Member]], pinned: Mapping[ActorId, str]) -> None:
        before, addresses = self._fingerprint(), self._addresses()
        self._members, self._pinned = found, pinned
        self._alone = {member.info.get("actor", ""): member for member in found.get("dedicated", ())}
        alive = {member.life for members in found.values() for member in members}
        self._suspects = {life: until for life, until in self._suspects.items() if life in alive}
        if self._fingerprint() != before:
            self._changed()
        for address in addresses - self._addresses():
            for tell in self._on_gone:
                tell(address)

    def _fingerprint(self) -> object:
        """What `version` counts the changes of. Load is left out: it changes with every beat."""
        members = [m for of_role in self._members.values() for m in of_role]
        seen = [(m.role, m.name, m.life, m.address, m.capacity, m.state, m.info) for m in members]
        return seen, self._pinned, self._suspects.keys()

    def _addresses(self) -> set[str]:
        return {member.address for members in self._members.values() for member in members}

    async def run(self) -> None:
        await keep_looking(self.refresh, REFRESH_EVERY_S, self._clock, self._stale)

    def _stale(self, error: FlotillaError) -> None:
        self._log.warning("roster.stale", reason=error.detail)


def _with(found: list[Member], known: list[Member]) -> list[Member]:
    """Those found, and those known that were not, by name."""
    names = {member.name for member in found}
    missing = [member for member in known if member.name not in names]
    return sorted([*found, *missing], key=lambda member: member.name)
