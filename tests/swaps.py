"""A world in which a pure model lives: a journal, a board, reminders, and works that end as they are told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from flotilla.core.effects import Answer, Due, Effect, Record, Signal, Stop, Woken
from flotilla.core.errors import Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.ledger import Codec
from flotilla.core.reminders import Remind
from flotilla.core.swap import Model
from flotilla.core.swap_facts import (
    AddVersion,
    BeginSwap,
    Do,
    Emptied,
    Judged,
    Loaded,
    Publish,
    Serve,
    Stuck,
    SwapEnded,
    SwapWent,
    Warmed,
    Worked,
)
from flotilla.core.swap_orders import CanaryStep, Case, Figures, GateSet, SwapOrder, Verdict
from flotilla.core.swap_views import ModelView
from flotilla.core.versions import FLEET, Canary, Plan, Version

ME = ActorId(FLEET, "model", "m")
CODEC = Codec(Model)
GATE = GateSet(name="g", cases=(Case(id="c-1", question="Why?", expected=("therefore",)),))
STEPS = (
    CanaryStep(canary=Canary(percent=5), hold_s=0.0),
    CanaryStep(canary=Canary(percent=50), hold_s=0.0),
)
FULL = SwapOrder(gate=GATE, shadow_replies=10, steps=STEPS, keep_s=60.0)
STAGES = [
    ("loading", 0),
    ("warming", 0),
    ("evaluating", 0),
    ("shadowing", 0),
    ("canary", 0),
    ("canary", 1),
    ("promoted", 0),
    ("retiring", 0),
]
PROBLEM = Unavailable("It is gone.").problem()


def version(name: str, **fields: Any) -> Version:
    return Version(model="m", name=name, engine="scripted", **fields)


def verdict(*reasons: str, quality: float = 0.9) -> Verdict:
    figures = Figures(version="m@2", replies=30, quality=quality, judged=30)
    stable = Figures(version="m@1", replies=30, quality=0.8, judged=30)
    return Verdict(candidate=figures, stable=stable, reasons=reasons)


class World:
    """`crash` loses the activation, and what was not recorded or published, and folds the journal."""

    def __init__(self) -> None:
        self.model = Model(id=ME)
        self.journal: list[Any] = []
        self.facts: list[Any] = []
        self.board: Plan | None = None
        self.published: list[Plan] = []
        self.performed: list[Effect] = []
        self.answers: list[ModelView] = []
        self.reminders: dict[str, Remind] = {}
        self.running: Do | None = None
        self.begun: list[Do] = []
        self.stale: list[Worked] = []
        self.deaths: set[int] = set()

    def known(self, *names: str) -> World:
        for name in names or ("1", "2"):
            self.feed(AddVersion(version=version(name), by="ann"))
        self.feed(Serve(version="m@1"))
        return self

    def begin(self, order: SwapOrder = FULL, to: str = "m@2", swap: str = "s-1") -> World:
        self.feed(BeginSwap(swap=swap, to=to, order=order, by="ann"))
        return self

    # -- performing

    def feed(self, signal: Any) -> tuple[Effect, ...]:
        effects = self.model.on(signal)
        fired = signal.name if isinstance(signal, Due) else None
        if fired and not any(isinstance(effect, Record) for effect in effects):
            self.reminders.pop(fired, None)
        for effect in effects:
            if len(self.performed) in self.deaths:
                self.deaths.discard(len(self.performed))
                self.crash()
                return effects
            self.performed.append(effect)
            self._perform(effect, fired)
        return effects

    def _perform(self, effect: Effect, fired: str | None) -> None:
        match effect:
            case Record():
                self.journal += [CODEC.entry(fact) for fact in effect.facts]
                self.facts += effect.facts
                if fired:
                    self.reminders.pop(fired, None)
                for change in effect.remind:
                    self.reminders.pop(change.name, None)
                    if isinstance(change, Remind):
                        self.reminders[change.name] = change
            case Publish(plan=plan):
                assert self.board is None or plan.revision >= self.board.revision, "revisions go up"
                self.board = plan
                self.published.append(plan)
            case Answer():
                self.answers.append(effect.value)
            case Do():
                assert self.running is None, "two works at a time"
                self.running = effect
                self.begun.append(effect)
            case Stop():
                assert self.running is not None and self.running.key == effect.key, (
                    "only what runs is stopped"
                )
                self.stale.append(well(self.running))
                self.running = None
            case _:
                raise AssertionError(f"nobody performs {effect}")

    def folded(self) -> Model:
        model = Model(id=ME)
        for entry in self.journal:
            model.fold(CODEC._decode(entry))
        return model

    def crash(self) -> None:
        self.running = None
        self.model = self.folded()
        self.feed(Woken())

    # -- works and reminders

    def report(self, signal: Worked) -> tuple[Effect, ...]:
        self.running = None
        return self.feed(signal)

    def step(self, **how: Any) -> bool:
        """What is under way ends well, or the reminder comes; False if there is nothing to wait for."""
        if self.running is not None and not self.running.held:
            self.report(well(self.running, **how))
        elif self.reminders:
            self.feed(Due(name=next(iter(self.reminders)), at=datetime(2026, 11, 22, tzinfo=UTC)))
        else:
            return False
        return True

    def until(self, stage: str, step: int = 0) -> World:
        while self.running is None or (self.running.stage, self.running.step) != (stage, step):
            assert self.step()
        return self

    def finish(self, steps_max: int = 100) -> World:
        for _ in range(steps_max):
            if not self.step():
                return self
        raise AssertionError("it has no end")

    # -- what came of it

    @property
    def view(self) -> ModelView:
        return self.model.view()

    @property
    def route(self) -> Any:
        assert self.board is not None
        return self.board.route

    def placed(self) -> set[str]:
        assert self.board is not None
        return {placed.version.id for placed in self.board.placed}

    def stages(self) -> list[tuple[str, int]]:
        return [(fact.stage, fact.step) for fact in self.facts if isinstance(fact, SwapWent)]

    def ends(self) -> list[str]:
        return [fact.end for fact in self.facts if isinstance(fact, SwapEnded)]


def well(work: Do, *, found: Verdict | None = None) -> Worked:
    """The signal with which a work ends if nothing is wrong."""
    match work.stage:
        case "loading":
            return Loaded(key=work.key)
        case "warming":
            return Warmed(key=work.key, first_token_ms=12.0)
        case "retiring":
            return Emptied(key=work.key)
        case _:
            return Judged(key=work.key, verdict=found or verdict())


def stuck(work: Do) -> Stuck:
    return Stuck(key=work.key, problem=PROBLEM)


def check(world: World) -> None:
    """What must hold at any time."""
    model, folded = world.model, world.folded()
    assert model == folded, "memory is what the record tells"
    assert world.board == model.plan() or world.board is None or not changed(world.board, model.plan()), (
        "what hangs on the board is what is wanted"
    )
    assert model.work() == world.running, "what should run runs, and nothing else"
    plan = model.plan()
    if plan.route is None:
        return
    assert plan.route.stable in plan.versions
    placed = [placed.version.id for placed in plan.placed]
    assert len(placed) == len(set(placed))
    assert model.versions[plan.route.stable].runs_on in placed, "the stable version has replicas"
    if plan.route.candidate:
        assert model.swap is not None and not model.swap.end and not model.swap.turned
        assert plan.route.candidate == model.swap.to != plan.route.stable
        assert model.versions[plan.route.candidate].runs_on in placed
    if model.swap is None:
        assert not plan.reloading


def changed(before: Plan, after: Plan) -> bool:
    return msgspec.structs.replace(before, revision=after.revision) != after


__all__ = ["Signal"]
