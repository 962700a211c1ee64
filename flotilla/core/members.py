"""The processes that make up a fleet."""

from __future__ import annotations

import msgspec


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A process that answers on a link. `name` outlives restarts, `life` doesn't."""

    role: str
    name: str
    life: str
    address: str  # HOST:PORT
    capacity: float = 1.0
    info: dict[str, str] = {}
