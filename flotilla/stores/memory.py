"""The stores without a disk: for laptops that need no tomorrow, for load tests and simulations.

They keep the same promises as PostgreSQL and Valkey, but for as long as their process lives.
"""

from __future__ import annotations

from flotilla.core.errors import Conflict, LimitReached
from flotilla.core.generation import Shown
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from flotilla.core.members import Member
from flotilla.stores.memory_journal import MemoryJournal, MemoryLetters

__all__ = ["MemoryDirectory", "MemoryHotLog", "MemoryJournal", "MemoryLetters", "MemoryOnce", "MemoryPins"]

SEALED_LOGS_HELD_MAX = 10_000


class MemoryHotLog:
    """Implements `HotLog`. It knows of the last `SEALED_LOGS_HELD_MAX` that were sealed."""

    def __init__(self) -> None:
        self._texts: dict[tuple[ActorId, str], bytes] = {}
        self._sealed: dict[tuple[ActorId, str], None] = {}

    async def append(self, actor: ActorId, turn: str, said: int, text: str) -> None:
        there = self._texts.get((actor, turn), b"")
        if len(there) != said or (actor, turn) in self._sealed:
            raise Conflict("Another host goes on with this reply.")
        self._texts[actor, turn] = there + text.encode()

    async def read(self, actor: ActorId, turn: str) -> Shown:
        text = self._texts.get((actor, turn), b"").decode()
        return Shown(text, (actor, turn) in self._sealed)

    async def seal(self, actor: ActorId, turn: str, *, forget: bool = False) -> str:
        if forget:
            self._texts.pop((actor, turn), None)
        self._sealed[actor, turn] = None
        if len(self._sealed) > SEALED_LOGS_HELD_MAX:
            oldest = next(iter(self._sealed))
            del self._sealed[oldest]
            self._texts.pop(oldest, None)
        return self._texts.get((actor, turn), b"").decode()

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
        known = self._members.get((member.role, member.name))
        if known is not None and known.life == member.life:
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


class MemoryPins:
    """Implements `Pins`."""

    def __init__(self) -> None:
        self._pins: dict[ActorId, str] = {}

    async def pin(self, actor: ActorId, host: str) -> None:
        """Raises `LimitReached` past `LIMITS.pins_max`."""
        if actor not in self._pins and len(self._pins) >= LIMITS.pins_max:
            raise LimitReached(
                f"{LIMITS.pins_max} actors are pinned.", next="Unpin some that may live anywhere."
            )
        self._pins[actor] = host

    async def unpin(self, actor: ActorId) -> None:
        self._pins.pop(actor, None)

    async def pins(self) -> dict[ActorId, str]:
        return dict(self._pins)
