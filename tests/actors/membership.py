"""A directory, pins and a clock in the hands of a test."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import structlog

from actors.link import Listener
from flotilla.core.errors import Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.members import Member, MemberState

TOKEN = "t"
LOG = structlog.get_logger("tests")


class Hands:
    """A clock that stands still; sleeping moves its hands at once."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.at += seconds


class Board:
    """Implements `Directory` and `Pins`; either can be out of order."""

    def __init__(self, *members: Member) -> None:
        self.found = {(m.role, m.name): m for m in members}
        self.pinned: dict[ActorId, str] = {}
        self.down: set[str] = set()

    def _check(self, what: str) -> None:
        if what in self.down:
            raise Unavailable(f"The {what} don't answer.")

    async def beat(self, member: Member) -> None:
        self._check("members")
        self.found[member.role, member.name] = member

    async def leave(self, member: Member) -> None:
        self._check("members")
        if (there := self.found.get((member.role, member.name))) and there.life == member.life:
            del self.found[member.role, member.name]

    async def members(self, role: str) -> list[Member]:
        self._check("members")
        return [member for (of, _), member in sorted(self.found.items()) if of == role]

    async def pin(self, actor: ActorId, host: str) -> None:
        self._check("pins")
        self.pinned[actor] = host

    async def unpin(self, actor: ActorId) -> None:
        self._check("pins")
        self.pinned.pop(actor, None)

    async def pins(self) -> dict[ActorId, str]:
        self._check("pins")
        return dict(self.pinned)

    async def ping(self) -> None:
        self._check("members")

    async def close(self) -> None:
        return None


def member(
    name: str = "host-0",
    *,
    role: str = "host",
    life: str = "",
    address: str = "127.0.0.1:1",
    state: MemberState = "up",
    **more: Any,
) -> Member:
    return Member(role=role, name=name, life=life or f"l-{name}", address=address, state=state, **more)


async def listening(board: Board, name: str, handler: Any, **more: Any) -> Listener:
    """A member of the board that answers with `handler`."""
    listener = Listener(handler, TOKEN)
    await board.beat(member(name, address=await listener.start(), **more))
    return listener
