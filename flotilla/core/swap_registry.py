"""A model's registry, folded from its facts: its versions, who is answered by which, the swaps there were."""

from __future__ import annotations

from typing import ClassVar, assert_never

from flotilla.core import swap_plan
from flotilla.core.actor import Actor, Kind, KindLimits
from flotilla.core.swap_facts import (
    Do,
    Facts,
    Messages,
    Served,
    SwapBegun,
    SwapEnded,
    SwapPaused,
    SwapResumed,
    SwapTurned,
    SwapWaits,
    SwapWent,
    VersionAdded,
    VersionDropped,
)
from flotilla.core.swap_orders import Figures, Verdict
from flotilla.core.swap_state import Swap, Went
from flotilla.core.swap_views import ModelView, SwapView
from flotilla.core.versions import Plan, Version

SWAPS_SHOWN_MAX = 20
DROPPED_KNOWN_MAX = 1_000
SWAPS_KNOWN_MAX = 1_000
"""So many swaps are known by their ids, so that none is begun twice."""


class Registry(Actor):
    kind: ClassVar[Kind] = Kind(
        name="model",
        messages=Messages,
        facts=Facts,
        limits=KindLimits(message_bytes_max=2 * 1024 * 1024),  # a gate set may have a mebibyte
    )

    versions: dict[str, Version] = {}
    added_by: dict[str, str] = {}
    dropped: list[str] = []
    stable: str = ""
    sizes: swap_plan.Sizes = swap_plan.Sizes()
    fallbacks: tuple[str, ...] = ()
    swap: Swap | None = None
    swaps: list[SwapView] = []
    known: dict[str, str] = {}
    scores: dict[str, Figures] = {}

    @property
    def unfinished(self) -> bool:
        return self.work() is not None

    def work(self) -> Do | None:
        """What is under way."""
        return self.swap.work(self.versions[self.swap.to]) if self.swap else None

    # -- folding

    def apply(self, fact: Facts) -> None:
        match fact:
            case VersionAdded():
                self.versions[fact.version.id] = fact.version
                self.added_by[fact.version.id] = fact.by
            case VersionDropped():
                self._drop(fact.version)
            case Served():
                self.stable = fact.version or self.stable
                self.sizes = self.sizes.changed(fact)
                self.fallbacks = self.fallbacks if fact.fallbacks is None else fact.fallbacks
            case SwapBegun():
                self._begin(fact)
            case SwapWent() | SwapPaused() | SwapResumed() | SwapWaits() | SwapTurned() | SwapEnded():
                assert self.swap is not None and self.swap.id == fact.swap
                self._go(self.swap, fact)
            case _:
                assert_never(fact)

    def _drop(self, id: str) -> None:
        for known in (self.versions, self.added_by, self.scores):
            known.pop(id, None)
        self.dropped = [*self.dropped, id][-DROPPED_KNOWN_MAX:]

    def _begin(self, fact: SwapBegun) -> None:
        self.swap = Swap(id=fact.swap, to=fact.to, from_=self.stable, order=fact.order, by=fact.by)
        self.known[fact.swap] = fact.to
        for old in list(self.known)[:-SWAPS_KNOWN_MAX]:
            del self.known[old]

    def _go(self, swap: Swap, fact: Went) -> None:
        if isinstance(fact, SwapWent | SwapTurned | SwapEnded) and swap.stage == "evaluating":
            self._score(fact.verdict)
        swap.apply(fact, self.seq)
        self.stable = swap.to if swap.promoted else swap.from_
        if isinstance(fact, SwapEnded):
            self.swaps = [swap.view(), *self.swaps][:SWAPS_SHOWN_MAX]
            self.swap = None

    def _score(self, verdict: Verdict | None) -> None:
        for figures in (verdict.candidate, verdict.stable) if verdict else ():
            if figures is not None:
                self.scores[figures.version] = figures

    # -- what follows from it

    def plan(self) -> Plan:
        return swap_plan.plan_of(
            model=self.id.name,
            revision=self.seq,
            versions=self.versions,
            stable=self.stable,
            sizes=self.sizes,
            fallbacks=self.fallbacks,
            swap=self.swap,
        )

    def view(self) -> ModelView:
        return ModelView(
            name=self.id.name,
            seq=self.seq,
            plan=self.plan(),
            versions=dict(self.versions),
            swap=self.swap.view() if self.swap else None,
            swaps=tuple(self.swaps),
            scores=dict(self.scores),
            added_by=dict(self.added_by),
        )
