"""The part of an event that the load fleet looks at. What isn't named here is skipped without being decoded."""

from __future__ import annotations

from typing import Any

import msgspec


class Timing(msgspec.Struct, gc=False):
    """Milliseconds, as the fleet measured them."""

    queued: float = 0.0
    retrieval: float = 0.0
    prompt: float = 0.0
    first_token: float = 0.0
    generation: float = 0.0
    total: float = 0.0
    overhead: float = 0.0


def timed(timing: Any) -> Timing:
    """Of anything with the same fields."""
    return Timing(*(getattr(timing, name) for name in Timing.__struct_fields__))


class Data(msgspec.Struct, frozen=True, gc=False):
    id: str = ""
    offset: int = 0
    text: str = ""
    timing: Timing | None = None


class Problem(msgspec.Struct, gc=False):
    type: str = ""
    status: int = 0
    detail: str = ""
    retry_after_s: float | None = None


class Event(msgspec.Struct, gc=False):
    """An event of the wire, or a frame of the socket (`pong`, `error`)."""

    type: str
    seq: int = 0
    turn: str = ""
    id: str = ""
    data: Data = Data()
    problem: Problem | None = None


decode = msgspec.json.Decoder(Event).decode
"""Text of a delta is decoded too: its length is counted in characters, and a short string costs less to
decode than its characters cost to count in bytes."""
