"""Who is in the fleet, as one process sees it: refreshed every second, kept when the directory is down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError
from flotilla.core.members import Member
from flotilla.core.ports import Directory

REFRESH_EVERY_S = 1.0
# A member whose link broke is passed over for this long, unless it comes back in a new life first.
SUSPECT_FOR_S = 3.0


class Roster:
    def __init__(self, directory: Directory, clock: Clock, log: Any, *roles: str) -> None:
        self._directory = directory
        self._clock = clock
        self._log = log
        self._members: dict[str, list[Member]] = {role: [] for role in roles}
        self._suspects: dict[str, float] = {}
        self._on_gone: list[Callable[[str], None]] = []

    def on_gone(self, tell: Callable[[str], None]) -> None:
        """`tell(address)` is called when nobody of the fleet is at an address any more."""
        self._on_gone.append(tell)

    def members(self, role: str) -> list[Member]:
        """Those that are believed alive; the suspects too when nobody else is left."""
        known, now = self._members[role], self._clock.monotonic()
        trusted = [member for member in known if self._suspects.get(member.life, 0.0) <= now]
        return trusted or known

    def suspect(self, member: Member) -> None:
        self._suspects[member.life] = self._clock.monotonic() + SUSPECT_FOR_S

    async def refresh(self) -> None:
        """Raises `Unavailable` if the directory is down; what was known stays known."""
        before = self._addresses()
        for role in self._members:
            self._members[role] = await self._directory.members(role)
        for address in before - self._addresses():
            for tell in self._on_gone:
                tell(address)
        alive = {member.life for members in self._members.values() for member in members}
        self._suspects = {life: until for life, until in self._suspects.items() if life in alive}

    def _addresses(self) -> set[str]:
        return {member.address for members in self._members.values() for member in members}

    async def run(self) -> None:
        while True:
            try:
                await self.refresh()
            except FlotillaError as error:
                self._log.warning("roster.stale", reason=error.detail)
            await self._clock.sleep(REFRESH_EVERY_S)
