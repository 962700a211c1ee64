"""What a swap is to do and what is found out by it: the words of whoever orders one and of whoever judges it.

`flotilla/core/policy/` judges by them (`gate`, `judges`, `burning`); the record has them inside of its facts
(`swap_facts`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from flotilla.core.versions import Canary

# -- what a swap is to do


class Judge(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an answer is scored, 0 to 1: `name` is a judge of `flotilla/core/policy/judges.py`, or
    `MODULE:FUNCTION` of the operator's own; `arguments` go to it."""

    name: str
    weight: float = 1.0
    arguments: dict[str, Any] = {}


class Case(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question of a gate set. `expected` are facts that a good answer has; `context` are passages that
    are given with it."""

    id: str
    question: str
    expected: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    persona: str = ""


class GateSet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The questions that a version has to answer before a customer is let near it. It passes with a mean
    score of `score_min` or more and no more than `worse_max` below the stable version's, and without
    errors."""

    name: str
    cases: tuple[Case, ...]
    judges: tuple[Judge, ...] = (Judge(name="facts"),)
    score_min: float = 0.0
    worse_max: float = 0.05
    tokens_max: int = 96


class Budgets(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the candidate may cost the customers while it is watched. A budget burns when at least
    `replies_min` replies (for errors: `errors_min` errors) say so."""

    error_share_max: float = 0.02
    errors_min: int = 3
    first_token_ratio_max: float = 1.5
    first_token_slack_ms: float = 20.0
    quality_drop_max: float = 0.1
    replies_min: int = 20


class CanaryStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Held for `hold_s` seconds and until the candidate has made `replies_min` replies, whichever is
    later; at most `hold_max_s`."""

    canary: Canary
    hold_s: float = 30.0
    replies_min: int = 0
    hold_max_s: float = 3600.0


class SwapOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`in_place` reloads the weights of the replicas that are there, one after the other, for where memory
    forbids two: nothing is compared then. `gate` None goes without, and the swap says so. `shadow_replies`
    0 goes without shadowing. Without `automatic` it waits at the end of each step of the canary until
    somebody promotes it. `keep_s` is how long the old version stays loaded behind a promotion."""

    in_place: bool = False
    gate: GateSet | None = None
    shadow_share: float = 0.2
    shadow_replies: int = 0
    shadow_max_s: float = 600.0
    steps: tuple[CanaryStep, ...] = (
        CanaryStep(canary=Canary(percent=5)),
        CanaryStep(canary=Canary(percent=25)),
        CanaryStep(canary=Canary(percent=50)),
    )
    budgets: Budgets = Budgets()
    automatic: bool = True
    load_max_s: float = 900.0
    keep_s: float = 600.0


# -- what is found out


class Figures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version over a span: `quality` is the mean of what judges said of its replies, 0 to 1, over
    `judged` of them. Times in ms."""

    version: str
    replies: int = 0
    errors: int = 0
    first_token_p50: float = 0.0
    first_token_p95: float = 0.0
    first_token_p99: float = 0.0
    tokens_per_s: float = 0.0
    judged: int = 0
    quality: float = 0.0
    quality_deviation: float = 0.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Both versions side by side. `reasons` say why not, one a budget, in words; passed if there is none."""

    candidate: Figures
    stable: Figures | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.reasons
