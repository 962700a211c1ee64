"""A model and its swap as they are shown: what every message to a model's actor is answered with."""

from __future__ import annotations

import msgspec

from flotilla.core.swap_orders import Figures, Verdict
from flotilla.core.versions import Plan, Version


class SwapView(msgspec.Struct, frozen=True, kw_only=True):
    """`stages` are all that it goes through, `percents` what each step of the canary answers, and `at` is the
    `seq` of the fact that it has come to. `verdicts` by the stage that found them (`canary 0` and so on)."""

    id: str
    to: str
    from_: str
    stage: str
    step: int = 0
    steps: int = 0
    percents: tuple[float, ...] = ()
    stages: tuple[str, ...] = ()
    at: int = 0
    paused: bool = False
    waits: bool = False
    end: str = ""
    reason: str = ""
    back: bool = False  # on its way back to `from_`, for `reason`
    gated: bool = True
    verdicts: dict[str, Verdict] = {}
    notes: tuple[str, ...] = ()
    by: str = ""


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """A model as its record tells of it. `versions` are all there are, by id; the plan has those that may be
    asked for now. `swaps` are the last ones that have ended, newest first."""

    name: str
    seq: int
    plan: Plan
    versions: dict[str, Version] = {}
    swap: SwapView | None = None
    swaps: tuple[SwapView, ...] = ()
    scores: dict[str, Figures] = {}
    added_by: dict[str, str] = {}
