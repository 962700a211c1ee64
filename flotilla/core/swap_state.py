"""A swap as its record tells of it: where it has come to, what is under way, what is shown of it.

All of it follows from the facts. The work that is under way does too, with its name: so whoever folds the
journal begins what the lost host had begun, and what a stopped work still reports has another name.
"""

from __future__ import annotations

from typing import Literal, assert_never

import msgspec

from flotilla.core.reminders import Remind
from flotilla.core.swap_facts import (
    Do,
    End,
    Stage,
    SwapEnded,
    SwapPaused,
    SwapResumed,
    SwapTurned,
    SwapWaits,
    SwapWent,
)
from flotilla.core.swap_orders import SwapOrder, Verdict
from flotilla.core.swap_views import SwapView
from flotilla.core.versions import Version

Went = SwapWent | SwapPaused | SwapResumed | SwapWaits | SwapTurned | SwapEnded
PROMOTED: frozenset[Stage] = frozenset({"promoted", "retiring"})
WATCHED: frozenset[Stage] = frozenset({"canary", "promoted"})
"""Customers are answered by the candidate: its budgets are watched even while it is held."""


class Swap(msgspec.Struct, kw_only=True):
    """`from_` is the version that was stable when it began. `at` is the `seq` of the fact that began what is
    under way."""

    id: str
    to: str
    from_: str
    order: SwapOrder
    by: str = ""
    stage: Stage = "loading"
    step: int = 0
    at: int = 0
    paused: bool = False
    waits: bool = False
    turned: End | Literal[""] = ""
    end: End | Literal[""] = ""
    reason: str = ""
    verdicts: dict[str, Verdict] = {}
    notes: tuple[str, ...] = ()

    @property
    def promoted(self) -> bool:
        """Whether the candidate is the stable version now."""
        return self.stage in PROMOTED and not self.turned

    def apply(self, fact: Went, seq: int) -> None:
        self.at = seq
        match fact:
            case SwapWent():
                self._found(fact.verdict, fact.note)
                self.stage, self.step = fact.stage, fact.step
                self.paused = self.waits = False
            case SwapPaused():
                self.paused = True
            case SwapResumed():
                self.paused = False
            case SwapWaits():
                self._found(fact.verdict, fact.note)
                self.waits = True
            case SwapTurned():
                self._found(fact.verdict)
                self.turned, self.reason = fact.end, fact.reason
                self.paused = self.waits = False
            case SwapEnded():
                self._found(fact.verdict)
                self.end, self.reason = fact.end, fact.reason
                self.paused = self.waits = False
            case _:
                assert_never(fact)

    def _found(self, verdict: Verdict | None, note: str = "") -> None:
        if verdict is not None:
            self.verdicts[label(self.stage, self.step)] = verdict
        if note:
            self.notes = (*self.notes, note)

    # -- what is to be done

    def work(self, candidate: Version) -> Do | None:
        """What is under way; None while it waits for somebody or for a reminder."""
        if self.end:
            return None
        if self.turned:
            return self._do(candidate, "loading" if self.order.in_place else "retiring", undo=True)
        if self.stage == "promoted" and self.waits:
            return None
        held = self.paused or self.waits
        if held and self.stage not in WATCHED:
            return None
        return self._do(candidate, self.stage, held=held)

    def _do(self, candidate: Version, stage: Stage, *, undo: bool = False, held: bool = False) -> Do:
        return Do(
            swap=self.id,
            stage=stage,
            step=self.step,
            attempt=self.at,
            stable=self.from_,
            candidate=candidate,
            order=self.order,
            undo=undo,
            held=held,
        )

    def following(self) -> tuple[Stage, int]:
        """The stage and the step behind this one; not for the last."""
        path = path_of(self.order)
        return path[path.index((self.stage, self.step)) + 1]

    @property
    def last(self) -> bool:
        return path_of(self.order)[-1] == (self.stage, self.step)

    # -- the reminder that the old version has been kept for long enough

    @property
    def reminder(self) -> str:
        return f"keep:{self.id}"

    def keep(self) -> Remind:
        return Remind(name=self.reminder, after_s=self.order.keep_s)

    def view(self) -> SwapView:
        return SwapView(
            id=self.id,
            to=self.to,
            from_=self.from_,
            stage=self.stage,
            step=self.step,
            steps=len(self.order.steps),
            percents=tuple(step.canary.percent for step in self.order.steps),
            stages=tuple(dict.fromkeys(stage for stage, _ in path_of(self.order))),
            at=self.at,
            paused=self.paused,
            waits=self.waits and self.stage == "canary",
            end=self.end,
            reason=self.reason,
            back=bool(self.turned),
            gated=self.order.gate is not None and not self.order.in_place,
            verdicts=dict(self.verdicts),
            notes=self.notes,
            by=self.by,
        )


def path_of(order: SwapOrder) -> list[tuple[Stage, int]]:
    """The stages that a swap goes through, if all is well, with the steps of the canary."""
    if order.in_place:
        return [("loading", 0), ("promoted", 0)]
    path: list[tuple[Stage, int]] = [("loading", 0), ("warming", 0)]
    if order.gate is not None:
        path.append(("evaluating", 0))
    if order.shadow_replies > 0:
        path.append(("shadowing", 0))
    for step in range(len(order.steps)):
        path.append(("canary", step))
    return [*path, ("promoted", 0), ("retiring", 0)]


def label(stage: str, step: int) -> str:
    """What a verdict is filed under."""
    return f"{stage} {step}" if stage == "canary" else stage
