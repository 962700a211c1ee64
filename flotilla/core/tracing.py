"""Spans: what was done because of one message, wherever it was done.

They are joined into a tree by their ids, as W3C Trace Context has them: `00-TRACE-PARENT-01` travels in
`Call.trace`. A span tells of types, places and times, and never of what a customer said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

import msgspec

from flotilla.core.clock import Clock
from flotilla.core.generation import Finished
from flotilla.core.ids import Draw

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

About = str | int | float
"""What a span may say of itself."""


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`trace` has 32 hexadecimal digits, `id` and `parent` 16; a root has no parent. `began` is in Unix
    seconds. `outcome` is "ok", or the kind of error that it ended with."""

    trace: str
    id: str
    parent: str = ""
    name: str
    began: float
    took_ms: float
    outcome: str = "ok"
    about: dict[str, About] = {}


class Tracer(Protocol):
    """Where spans go."""

    def write(self, span: Span) -> None:
        """Neither waits nor raises: a span that can't be kept is lost, and no turn with it."""
        ...

    def close(self) -> None:
        """Hands on what it still holds."""
        ...


class Opened:
    """A span that has begun. `traceparent` is for what is done because of it."""

    __slots__ = ("_about", "_at", "_began", "_clock", "_name", "_tracer", "id", "outcome", "parent", "trace")

    def __init__(self, tracer: Tracer, clock: Clock, parent: str, name: str, about: dict[str, About]) -> None:
        """`parent` is a traceparent; "" begins a new trace."""
        self._tracer = tracer
        self._clock = clock
        self._name = name
        self._about = about
        self._at = clock.now().timestamp()
        self._began = clock.monotonic()
        self.trace = parent[3:35] or f"{Draw.number():032x}"
        self.parent = parent[36:52]
        self.id = f"{Draw.number() & (1 << 64) - 1:016x}"
        self.outcome = "ok"

    def __repr__(self) -> str:
        return f"<Opened {self._name}: {self.traceparent}>"

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace}-{self.id}-01"

    def note(self, about: Mapping[str, About]) -> None:
        """More that it says of itself."""
        self._about = self._about | dict(about)

    def close(self) -> None:
        span = Span(
            trace=self.trace,
            id=self.id,
            parent=self.parent,
            name=self._name,
            began=self._at,
            took_ms=round((self._clock.monotonic() - self._began) * 1000, 3),
            outcome=self.outcome,
            about=self._about,
        )
        self._tracer.write(span)


def gen_ai(wanted: str, end: Finished) -> dict[str, About]:
    """What a span says of a reply, by the names of OpenTelemetry's conventions for generative AI: `wanted`
    is the model or version that was asked for, if any was. Times are in seconds, of the engine's own clock."""
    usage = end.usage
    asked: dict[str, About] = {"gen_ai.request.model": wanted} if wanted else {}
    return asked | {
        "gen_ai.operation.name": "chat",
        "gen_ai.response.model": end.model,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "gen_ai.server.time_to_first_token": round(end.first_token_ms / 1000, 6),
        "gen_ai.server.request.duration": round(end.total_ms / 1000, 6),
    }


def sampled(header: str) -> bool | None:
    """Whether whoever sent this `traceparent` traces; None if it is none."""
    found = _TRACEPARENT.fullmatch(header)
    if found is None or header.startswith("ff") or int(found[1], 16) == 0 or int(found[2], 16) == 0:
        return None
    return bool(int(found[3], 16) & 1)
