"""How a swap goes on and comes back: what its works report, what its reminder says.

Where it can be turned back, and how it ends:

| by | while | ends as |
|---|---|---|
| a stage that can't be done, a gate or a shadow that fails | no customer was answered by the candidate | failed |
| a budget that burns | canary, promoted; also while it is paused or waits | rolled_back |
| a person | any stage, as long as the old version is still there | rolled_back |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from flotilla.core.effects import Answer, Due, Effect, Effects, Stop
from flotilla.core.errors import Problem
from flotilla.core.reminders import Forget, Remind
from flotilla.core.swap_facts import (
    Emptied,
    End,
    Judged,
    Loaded,
    Publish,
    Stuck,
    SwapEnded,
    SwapTurned,
    SwapWaits,
    SwapWent,
    Warmed,
    Worked,
)
from flotilla.core.swap_orders import Verdict
from flotilla.core.swap_registry import Registry
from flotilla.core.swap_state import WATCHED, Swap

NO_GATE = "There is no gate set: its answers were not evaluated."
IN_PLACE = "Reloaded in place: not evaluated, and compared with nothing."


class Steps(Registry):
    def _on_worked(self, signal: Worked) -> Effects:
        swap, work = self.swap, self.work()
        if swap is None or work is None or signal.key != work.key:
            return ()  # of a work that was stopped
        if swap.turned:
            return self._end_back(swap, signal)
        match signal:
            case Stuck():
                return self._on_stuck(swap, signal.problem)
            case Judged():
                return self._on_judged(swap, signal.verdict)
            case Warmed():
                return self._go_on(swap, note=f"Warm: a first token after {signal.first_token_ms:.0f} ms.")
            case Loaded() | Emptied():
                return self._go_on(swap)

    def _end_back(self, swap: Swap, signal: Worked) -> Effects:
        reason = swap.reason
        if isinstance(signal, Stuck):  # the controller replaces the replicas that are of no version any more
            reason += f"; and {swap.from_} had to be started anew: {signal.problem.detail}"
        return self._change(
            SwapEnded(swap=swap.id, end=swap.turned or "failed", reason=reason), reported=True
        )

    def _on_stuck(self, swap: Swap, problem: Problem) -> Effects:
        said = f"{swap.stage}: {problem.detail}"
        if swap.stage == "promoted":  # it could not be watched: that is no reason to go back
            return self._change(SwapWaits(swap=swap.id, note=said), reported=True)
        if swap.stage == "retiring":
            return self._go_on(swap)
        return self._turn(swap, "failed", said, reported=True)

    def _on_judged(self, swap: Swap, verdict: Verdict) -> Effects:
        if not verdict.passed:
            end: End = "rolled_back" if swap.stage in WATCHED else "failed"
            return self._turn(swap, end, "; ".join(verdict.reasons), verdict, reported=True)
        if swap.paused or swap.waits:
            return ()
        if swap.stage == "promoted" or (swap.stage == "canary" and not swap.order.automatic):
            return self._change(SwapWaits(swap=swap.id, verdict=verdict), reported=True)
        return self._go_on(swap, verdict)

    def _on_due(self, due: Due) -> Effects:
        """The old version has been kept for long enough."""
        swap = self.swap
        if swap is None or due.name != swap.reminder or swap.stage != "promoted":
            return ()
        return () if swap.turned or swap.paused else self._go_on(swap, reported=False)

    # -- on, and back

    def _go_on(
        self,
        swap: Swap,
        verdict: Verdict | None = None,
        *,
        note: str = "",
        by: str = "",
        reported: bool = True,
        remind: Sequence[Remind | Forget] = (),
    ) -> Effects:
        """Someone who asks for it, or a reminder, has nothing to report: then work may be under way."""
        if swap.last:
            ended = SwapEnded(swap=swap.id, end="done", verdict=verdict, by=by)
            return self._change(ended, remind=remind, reported=reported)
        stage, step = swap.following()
        went = SwapWent(
            swap=swap.id,
            stage=stage,
            step=step,
            verdict=verdict,
            note=" ".join(filter(None, (note, _left_out(swap)))),
            by=by,
        )
        if stage == "promoted":
            remind = (*remind, swap.keep())
        return self._change(went, remind=remind, reported=reported)

    def _turn(
        self,
        swap: Swap,
        end: End,
        reason: str,
        verdict: Verdict | None = None,
        *,
        by: str = "",
        reported: bool = False,
    ) -> Effects:
        """Back to the old version. Where nobody can have asked the candidate for anything, that is all."""
        remind = (Forget(name=swap.reminder),) if swap.stage == "promoted" else ()
        if swap.stage == "loading" and not swap.order.in_place:
            ended = SwapEnded(swap=swap.id, end=end, reason=reason, verdict=verdict, by=by)
            return self._change(ended, reported=reported)
        turned = SwapTurned(swap=swap.id, end=end, reason=reason, verdict=verdict, by=by)
        return self._change(turned, remind=remind, reported=reported)

    def _change(self, *facts: Any, remind: Sequence[Remind | Forget] = (), reported: bool = False) -> Effects:
        """Records the facts, and has done whatever follows from them. With `reported` the work that was
        under way has ended."""
        plan, work = self.plan(), self.work()
        record = self.record(*facts, remind=tuple(remind))
        effects: list[Effect] = [record]
        after, now = self.work(), self.plan()
        if work and not reported and (after is None or after.key != work.key):
            effects.insert(0, Stop(key=work.key))
        if msgspec.structs.replace(plan, revision=now.revision) != now:
            effects.append(Publish(plan=now))
        effects.append(self._shown())
        if after and (work is None or after.key != work.key):
            effects.append(after)
        return tuple(effects)

    def _shown(self) -> Answer:
        return Answer(value=self.view())


def _left_out(swap: Swap) -> str:
    """What the stage that comes next says of those that were passed over."""
    if swap.order.in_place and swap.stage == "loading":
        return IN_PLACE
    return NO_GATE if swap.stage == "warming" and swap.order.gate is None else ""
