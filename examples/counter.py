"""The smallest kind: a counter that survives everything. See docs/kinds.md.

FLOTILLA_KINDS=examples.counter makes a fleet host it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from flotilla.core.actor import Actor, Fact, Kind
from flotilla.core.effects import Answer, Effects, Message
from flotilla.core.errors import Refused


class Added(Fact, frozen=True, kw_only=True, tag="added"):
    id: str
    n: int


class Add(Message[int], frozen=True, kw_only=True, tag="add"):
    """Adds `n` and answers with the total. `id` makes it safe to send twice."""

    idempotent = True
    id: str
    n: int = 1


class Total(Message[int], frozen=True, tag="total"):
    idempotent = True


class Counter(Actor):
    kind: ClassVar[Kind] = Kind(name="counter", messages=Add | Total, facts=Added)

    total: int = 0
    seen: dict[str, int] = {}

    def apply(self, fact: Added) -> None:
        self.total += fact.n
        self.seen[fact.id] = self.total

    def on(self, signal: Any) -> Effects:
        match signal:
            case Add() if signal.id in self.seen:
                return (Answer(value=self.seen[signal.id]),)
            case Add(n=0):
                raise Refused("`n` is 0.", field="n", next="Add something.")
            case Add():
                return self.record(Added(id=signal.id, n=signal.n)), Answer(value=self.total)
            case _:
                return (Answer(value=self.total),)
