"""The stores without a disk: for laptops that need no tomorrow, for load tests and simulations.

They keep the same promises as PostgreSQL and Valkey, but for as long as their process lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from flotilla.core.errors import Conflict
from flotilla.core.facts import Fact, Recorded
from flotilla.core.ids import ActorId
from flotilla.core.members import Member


class MemoryJournal:
    """Implements `Journal`."""

    def __init__(self) -> None:
        self._facts: dict[ActorId, list[Recorded]] = {}
        self._unfinished: dict[ActorId, None] = {}

    async def append(
        self, actor: ActorId, expected: int, facts: Sequence[Fact], *, at: datetime, unfinished: bool
    ) -> None:
        log = self._facts.setdefault(actor, [])
        if len(log) != expected:
            raise Conflict("Another host has written to this actor's journal.")
        log.extend(Recorded(seq=expected + i, at=at, fact=fact) for i, fact in enumerate(facts, 1))
        if unfinished:
            self._unfinished[actor] = None
        else:
            self._unfinished.pop(actor, None)

    async def read(self, actor: ActorId, *, after: int = 0, limit: int | None = None) -> list[Recorded]:
        return self._facts.get(actor, [])[after:][:limit]

    async def unfinished(self) -> list[ActorId]:
        return list(self._unfinished)

    async def actors(
        self, tenant: str, kind: str, *, before: str | None = None, limit: int = 50
    ) -> list[tuple[ActorId, list[Recorded]]]:
        mine = [a for a, log in self._facts.items() if log and (a.tenant, a.kind) == (tenant, kind)]
        older = sorted((a for a in mine if before is None or a.name < before), reverse=True)[:limit]
        return [(actor, _ends(self._facts[actor])) for actor in older]

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        return None


def _ends(log: Sequence[Recorded]) -> list[Recorded]:
    return [log[0]] if len(log) == 1 else [log[0], log[-1]]


class MemoryHotLog:
    """Implements `HotLog`."""

    def __init__(self) -> None:
        self._texts: dict[tuple[ActorId, str], bytes] = {}

    async def append(self, actor: ActorId, turn: str, said: int, text: str) -> None:
        there = self._texts.get((actor, turn), b"")
        if len(there) != said:
            raise Conflict("Another host goes on with this reply.")
        self._texts[actor, turn] = there + text.encode()

    async def read(self, actor: ActorId, turn: str) -> str:
        return self._texts.get((actor, turn), b"").decode()

    async def forget(self, actor: ActorId, turn: str) -> None:
        self._texts.pop((actor, turn), None)

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        return None


class MemoryDirectory:
    """Implements `Directory`; its members live until they leave."""

    def __init__(self) -> None:
        self._members: dict[tuple[str, str], Member] = {}

    async def beat(self, member: Member) -> None:
        self._members[member.role, member.name] = member

    async def leave(self, member: Member) -> None:
        if self._members.get((member.role, member.name)) == member:
            del self._members[member.role, member.name]

    async def members(self, role: str) -> list[Member]:
        return [member for (of, _), member in sorted(self._members.items()) if of == role]

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        return None


class MemoryOnce:
    """Implements `Once`."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], str] = {}

    async def claim(self, tenant: str, key: str, value: str) -> str:
        return self._values.setdefault((tenant, key), value)
