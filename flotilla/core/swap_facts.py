"""What a model's actor hears, records and has performed. `flotilla/core/swap.py` decides about it.

    begin ─ loading ─ warming ─ evaluating ─ shadowing ─ canary 1 … n ─ promoted ─ retiring ─ done
               └──────────┴──────────┴───────────┴───────────┴──────────────┴─ rolled back / failed

Each step is a work with a key of its own. A crash at any point folds the journal, publishes the plan again
and begins the step again; a step can always be begun again.
"""

from __future__ import annotations

from typing import Literal

from flotilla.core.actor import Fact
from flotilla.core.effects import Message, Signal, Step, Work
from flotilla.core.errors import Problem
from flotilla.core.swap_orders import SwapOrder, Verdict
from flotilla.core.swap_views import ModelView
from flotilla.core.versions import Plan, Version

Stage = Literal["loading", "warming", "evaluating", "shadowing", "canary", "promoted", "retiring"]
End = Literal["done", "rolled_back", "failed"]


# -- messages. `by` is who asks, for the record.


class AddVersion(Message[ModelView], frozen=True, kw_only=True, tag="model.add"):
    idempotent = True
    version: Version
    by: str = ""


class DropVersion(Message[ModelView], frozen=True, kw_only=True, tag="model.drop"):
    """Forgets a version that nobody needs. Its name is never used again."""

    idempotent = True
    version: str
    by: str = ""


class Serve(Message[ModelView], frozen=True, kw_only=True, tag="model.serve"):
    """Has the model answer with `version` if it answers with none yet; else changes nothing. Also sets how
    many replicas there are to be, and the fallbacks, where they are given."""

    idempotent = True
    version: str = ""
    least: int | None = None
    most: int | None = None
    cpus: float | None = None
    gpus: float | None = None
    fallbacks: tuple[str, ...] | None = None
    by: str = ""


class BeginSwap(Message[ModelView], frozen=True, kw_only=True, tag="model.swap"):
    """`swap` is the asker's id for it: it is begun once."""

    idempotent = True
    swap: str
    to: str
    order: SwapOrder = SwapOrder()
    by: str = ""


class Pause(Message[ModelView], frozen=True, kw_only=True, tag="model.pause"):
    idempotent = True
    by: str = ""


class Resume(Message[ModelView], frozen=True, kw_only=True, tag="model.resume"):
    """On from where it was held; from a step that waits, to the next; and from a promotion, to the end of the
    old version. `at` is the `SwapView.at` that the asker saw: from anywhere else nothing changes, so that
    one that comes twice goes on once. 0 means wherever it is."""

    idempotent = True
    at: int = 0
    by: str = ""


class Promote(Message[ModelView], frozen=True, kw_only=True, tag="model.promote"):
    """From whatever step of the canary or the shadow it is at: all conversations, now."""

    idempotent = True
    by: str = ""


class RollBack(Message[ModelView], frozen=True, kw_only=True, tag="model.roll_back"):
    """Of a swap under way, or of one that was promoted and whose old version is still loaded."""

    idempotent = True
    reason: str = ""
    by: str = ""


class Show(Message[ModelView], frozen=True, kw_only=True, tag="model.show"):
    """With `hang` the plan is published again, too."""

    idempotent = True
    hang: bool = False


Messages = AddVersion | DropVersion | Serve | BeginSwap | Pause | Resume | Promote | RollBack | Show


# -- signals of its own works


class Loaded(Signal, frozen=True, kw_only=True, tag="model.loaded"):
    key: str


class Warmed(Signal, frozen=True, kw_only=True, tag="model.warmed"):
    key: str
    first_token_ms: float


class Judged(Signal, frozen=True, kw_only=True, tag="model.judged"):
    """The end of an evaluation, of the shadow, or of a step of the canary: or sooner, if a budget burns."""

    key: str
    verdict: Verdict


class Emptied(Signal, frozen=True, kw_only=True, tag="model.emptied"):
    """Nobody is being answered by the version any more; its replicas may go."""

    key: str


class Stuck(Signal, frozen=True, kw_only=True, tag="model.stuck"):
    """The step can't be done."""

    key: str
    problem: Problem


Worked = Loaded | Warmed | Judged | Emptied | Stuck


# -- facts


class VersionAdded(Fact, frozen=True, kw_only=True, tag="version.added"):
    version: Version
    by: str = ""


class VersionDropped(Fact, frozen=True, kw_only=True, tag="version.dropped"):
    version: str
    by: str = ""


class Served(Fact, frozen=True, kw_only=True, tag="model.served"):
    """What `Serve` changed; None for what stays."""

    version: str = ""
    least: int | None = None
    most: int | None = None
    cpus: float | None = None
    gpus: float | None = None
    fallbacks: tuple[str, ...] | None = None
    by: str = ""


class SwapBegun(Fact, frozen=True, kw_only=True, tag="swap.begun"):
    swap: str
    to: str
    order: SwapOrder
    by: str = ""


class SwapWent(Fact, frozen=True, kw_only=True, tag="swap.went"):
    """On to a stage; `step` counts the steps of the canary from 0. `verdict` is what the stage before it
    found; `note` what was left out, and why."""

    swap: str
    stage: Stage
    step: int = 0
    verdict: Verdict | None = None
    note: str = ""
    by: str = ""


class SwapPaused(Fact, frozen=True, kw_only=True, tag="swap.paused"):
    swap: str
    by: str = ""


class SwapResumed(Fact, frozen=True, kw_only=True, tag="swap.resumed"):
    swap: str
    by: str = ""


class SwapWaits(Fact, frozen=True, kw_only=True, tag="swap.waits"):
    """The stage has found what it was to find: it waits for somebody (a step of the canary) or for the time
    to be up for which the old version is kept (once it is promoted)."""

    swap: str
    verdict: Verdict | None = None
    note: str = ""


class SwapTurned(Fact, frozen=True, kw_only=True, tag="swap.turned"):
    """From here on everybody is answered by the old version again. It ends once the replies that the
    candidate has begun are finished or, in place, once the old weights are back."""

    swap: str
    end: End
    reason: str = ""
    verdict: Verdict | None = None
    by: str = ""


class SwapEnded(Fact, frozen=True, kw_only=True, tag="swap.ended"):
    """`reason` is "" for one that is done."""

    swap: str
    end: End
    reason: str = ""
    verdict: Verdict | None = None
    by: str = ""


Facts = (
    VersionAdded
    | VersionDropped
    | Served
    | SwapBegun
    | SwapWent
    | SwapPaused
    | SwapResumed
    | SwapWaits
    | SwapTurned
    | SwapEnded
)


# -- effects


class Publish(Step, frozen=True, kw_only=True):
    """Hang the plan up, before anything that is listed behind it. A board that can't be reached is tried
    again by the performer; the plan hangs there again whenever the actor wakes."""

    plan: Plan


class Do(Work, frozen=True, kw_only=True):
    """A stage of a swap. Ends with exactly one of `Worked`, whose `key` is this one's. `attempt` is the `seq`
    of the fact that it was begun by. With `held` nothing but a burning budget ends it."""

    swap: str
    stage: Stage
    step: int
    attempt: int
    stable: str
    candidate: Version
    order: SwapOrder
    undo: bool = (
        False  # in place: back to the stable version's weights; else it is the candidate that retires
    )
    held: bool = False

    @property
    def key(self) -> str:
        return f"{self.swap}:{self.stage}:{self.step}:{self.attempt}"
