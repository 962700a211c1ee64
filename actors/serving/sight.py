"""What a swap sees of the replicas and has them do, one by one."""

from __future__ import annotations

from collections.abc import Callable

from actors.frames import encode
from actors.link import Links
from actors.roster import Roster
from actors.serving.attempts import LOAD_ADAPTER_TIMEOUT_S
from actors.serving.balance import ROLE
from flotilla.core.errors import Unavailable
from flotilla.core.members import Member
from flotilla.core.versions import Version

Failures = Callable[[str], str | None]
"""Why replicas of a version don't come up, by its id; None if nothing is known to be wrong."""


class Replicas:
    """`failures` is what those who start replicas say."""

    def __init__(self, links: Links, roster: Roster, failures: Failures) -> None:
        self._links = links
        self._roster = roster
        self._failures = failures

    def __repr__(self) -> str:
        return f"<Replicas: {len(self._roster.members(ROLE))}>"

    def of(self, version_id: str) -> list[Member]:
        """Those that serve the version now, those that are draining (`Member.state`) too."""
        return [m for m in self._roster.members(ROLE) if m.info.get("version") == version_id]

    async def refresh(self) -> None:
        """Looks into the directory now. Raises `Unavailable` if that is down."""
        await self._roster.refresh()

    async def reload(self, member: Member, version: Version, timeout_s: float) -> None:
        """Swaps its weights in place; it serves `version` when this returns. Raises what the engine raised,
        `Unavailable` if the replica is lost or the time is up."""
        await self._ask(member, "reload", version, timeout_s)

    async def load_adapter(self, member: Member, version: Version) -> None:
        """Loading what is loaded changes nothing. Raises as above."""
        await self._ask(member, "load_adapter", version, LOAD_ADAPTER_TIMEOUT_S)

    def failure(self, version_id: str) -> str | None:
        return self._failures(version_id)

    async def _ask(self, member: Member, method: str, version: Version, timeout_s: float) -> None:
        try:
            link = await self._links.to(member.address)
        except Unavailable:
            self._roster.suspect(member)
            raise
        try:
            await link.ask(method, encode(version), timeout_s=timeout_s)
        except Unavailable:
            if link.lost:
                self._roster.suspect(member)
            raise
