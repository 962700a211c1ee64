"""Watching a candidate: what all processes have counted since the stage began, beside the stable version.

While the tallies can't be read nothing is concluded, and the time does not count: a stage that was held
blind has shown nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.serving.swap_needs import LOOK_EVERY_S, SwapNeeds
from flotilla.core.errors import FlotillaError
from flotilla.core.policy.burning import burnt
from flotilla.core.policy.retry import passes
from flotilla.core.swap_facts import Do
from flotilla.core.swap_orders import Figures, Verdict
from flotilla.core.tallies import SHADOW, Tallies, Tally, since, summed

# How long the figures go on being compared once all conversations have the new version.
PROMOTED_S = 60.0
SHOW_EVERY_S = 1.0
# A longer time between two looks was spent blind.
BLIND_S = 1.0

Show = Callable[[Figures, Figures], None]
"""Candidate and stable version, once a second."""
End = Callable[[float, Figures], bool]
"""Whether it is over: the seconds watched, and the candidate's figures."""


class Counted:
    """The sum of what each process has counted since it was first seen. What a process counted that has
    gone since stays in."""

    def __init__(self) -> None:
        self._before: dict[str, Tallies] = {}
        self._counted: dict[str, Tallies] = {}

    def take(self, pages: dict[str, Tallies]) -> Tallies:
        for process, page in pages.items():
            before = self._before.setdefault(process, page)
            self._counted[process] = since(page, before)
        return summed(list(self._counted.values()))


class Watching:
    def __init__(self, needs: SwapNeeds, effect: Do, show: Show, recorded: Figures | None) -> None:
        """`recorded` are the stable version's figures from before it was replaced."""
        self._needs = needs
        self._effect = effect
        self._show = show
        self._recorded = recorded
        self._counted = Counted()
        self._watched_s = 0.0
        self._looked_at: float | None = None
        self._shown_at = -SHOW_EVERY_S

    async def shadow(self) -> Verdict:
        order = self._effect.order

        def over(watched_s: float, figures: Figures) -> bool:
            return figures.replies + figures.errors >= order.shadow_replies or watched_s >= order.shadow_max_s

        verdict = await self._watch(self._shadow_figures, over)
        made = verdict.candidate.replies
        few = f"Only {made} of {order.shadow_replies} replies were made in {order.shadow_max_s:g} s."
        alike = (
            f"They have {verdict.candidate.quality:.0%} of their words in common with those that were sent."
        )
        notes = [alike] if verdict.candidate.judged else []
        return _noted(verdict, *([few] if made < order.shadow_replies else []), *notes)

    async def canary(self) -> Verdict:
        step = self._effect.order.steps[self._effect.step]

        def over(watched_s: float, figures: Figures) -> bool:
            enough = watched_s >= step.hold_s and figures.replies >= step.replies_min
            return not self._effect.held and (enough or watched_s >= step.hold_max_s)

        verdict = await self._watch(self._figures, over)
        made, few = verdict.candidate.replies, max(1, step.replies_min)
        return _noted(verdict, *([f"It made {made} replies only."] if made < few else []))

    async def promoted(self) -> Verdict:
        def over(watched_s: float, figures: Figures) -> bool:
            return not self._effect.held and watched_s >= PROMOTED_S

        verdict = await self._watch(self._promoted_figures, over)
        alone = f"Nothing was known of {self._effect.stable}: only errors were watched."
        return _noted(verdict, *([] if self._recorded else [alone]))

    # -- looking

    async def _watch(self, figures: Callable[[Tallies], tuple[Figures, Figures]], over: End) -> Verdict:
        """Until a budget burns or it is over."""
        while True:
            counted = await self._look()
            if counted is not None:
                candidate, stable = figures(counted)
                self._show_soon(candidate, stable)
                reasons = burnt(candidate, stable, self._effect.order.budgets)
                if reasons or over(self._watched_s, candidate):
                    return Verdict(candidate=candidate, stable=stable, reasons=reasons)
            await self._needs.clock.sleep(LOOK_EVERY_S)

    async def _look(self) -> Tallies | None:
        """None while the board doesn't answer."""
        try:
            pages = await self._needs.tallies.pages()
        except FlotillaError as error:
            if not passes(error):
                raise
            self._looked_at = None
            return None
        now = self._needs.clock.monotonic()
        if self._looked_at is not None:
            self._watched_s += min(BLIND_S, now - self._looked_at)
        self._looked_at = now
        return self._counted.take(pages)

    def _show_soon(self, candidate: Figures, stable: Figures) -> None:
        now = self._needs.clock.monotonic()
        if now - self._shown_at >= SHOW_EVERY_S:
            self._shown_at = now
            self._show(candidate, stable)

    # -- whose figures

    def _figures(self, counted: Tallies) -> tuple[Figures, Figures]:
        effect = self._effect
        return _of(counted, effect.candidate.id), _of(counted, effect.stable)

    def _shadow_figures(self, counted: Tallies) -> tuple[Figures, Figures]:
        """The quality of a shadow says how alike the replies are: nothing to compare with a judge's word."""
        id = self._effect.candidate.id
        candidate = counted.get(SHADOW + id, Tally()).figures(id)
        return candidate, msgspec.structs.replace(_of(counted, self._effect.stable), judged=0, quality=0.0)

    def _promoted_figures(self, counted: Tallies) -> tuple[Figures, Figures]:
        before = self._recorded or Figures(version=self._effect.stable)
        return _of(counted, self._effect.candidate.id), before


def _of(counted: Tallies, id: str) -> Figures:
    return counted.get(id, Tally()).figures(id)


def _noted(verdict: Verdict, *notes: str) -> Verdict:
    return msgspec.structs.replace(verdict, notes=(*verdict.notes, *notes)) if notes else verdict
