"""The processes that make up a fleet."""

from __future__ import annotations

from typing import Literal

import msgspec

MemberState = Literal["up", "draining"]


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A process that answers on a link. `name` outlives restarts, `life` doesn't.

    One that is draining serves what is still there, and nothing new is placed on it. `load` is what the
    process says of itself with each beat."""

    role: str
    name: str
    life: str
    address: str  # HOST:PORT
    capacity: float = 1.0
    info: dict[str, str] = {}
    state: MemberState = "up"
    load: dict[str, float] = {}
