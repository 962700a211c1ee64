"""How a model's effects are performed: its plan is hung up, and the stages of its swaps are gone through.

A stage ends with one signal. Whatever it meets that passes, it waits for; what doesn't ends it as stuck.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from typing import Any

import msgspec

from actors.doorways import Doorways
from actors.performer import Activation, Performer
from actors.runtime import Resident
from actors.serving.swap_evaluating import Evaluating
from actors.serving.swap_loading import Loading, empty, warm
from actors.serving.swap_needs import Sight, SwapNeeds
from actors.serving.swap_watching import Watching
from flotilla.core.calls import Call
from flotilla.core.clock import Clock
from flotilla.core.effects import Message, Signal, Step, Woken, Work
from flotilla.core.errors import FlotillaError, Problem
from flotilla.core.ids import ActorId
from flotilla.core.policy.retry import passes
from flotilla.core.ports import PlanBoard
from flotilla.core.swap import Model
from flotilla.core.swap_facts import (
    Do,
    Emptied,
    Judged,
    Loaded,
    Publish,
    Stuck,
    Warmed,
    Worked,
)
from flotilla.core.swap_orders import Figures
from flotilla.core.versions import Plan, Version
from flotilla.views import events

HANG_S = 2.0
HANG_RETRY_S = 0.1
HANG_RETRY_MOST_S = 1.0
RECORDED_MAX = 256

Spawn = Callable[[Coroutine[Any, Any, None]], None]


def residents(doors: Doorways) -> Iterable[Resident]:
    """None in a fleet without models."""
    if doors.board is None or doors.tallies is None or doors.replicas is None:
        return
    replicas: Sight = doors.replicas
    needs = SwapNeeds(
        model=doors.model,
        tallies=doors.tallies,
        replicas=replicas,
        clock=doors.clock,
        log=doors.log,
        judges=doors.judges,
    )
    yield Resident(Model, ModelPerformer(needs, PlanWall(doors.board, doors.clock, doors.log, doors.spawn)))


class PlanWall:
    """Hangs plans up. While the board can't be reached the actor goes on, and the plan is hung up later; the
    stages wait for it."""

    def __init__(self, board: PlanBoard, clock: Clock, log: Any, spawn: Spawn) -> None:
        self._board = board
        self._clock = clock
        self._log = log
        self._spawn = spawn
        self._late: dict[str, Plan] = {}

    async def hang(self, plan: Plan) -> None:
        """Returns once it hangs there, or after a while all the same."""
        if plan.model in self._late:
            self._late[plan.model] = plan
            return
        self._late[plan.model] = plan
        try:
            hangs = await self._try(plan.model, HANG_S)
        except asyncio.CancelledError:  # its actor has left; who comes next relies on this
            self._spawn(self._go_on(plan.model))
            raise
        if not hangs:
            self._log.warning("plan.late", model=plan.model, revision=plan.revision)
            self._spawn(self._go_on(plan.model))

    async def hung(self, model: str) -> None:
        """Returns once the newest plan hangs there."""
        while model in self._late:
            await self._clock.sleep(HANG_RETRY_S)

    async def _go_on(self, model: str) -> None:
        await self._try(model, None)

    async def _try(self, model: str, most_s: float | None) -> bool:
        begun, pause_s = self._clock.monotonic(), HANG_RETRY_S
        while True:
            plan = self._late[model]
            try:
                await self._board.publish(plan)
            except FlotillaError as error:
                if not passes(error):
                    del self._late[model]
                    raise
            else:
                if self._late[model] is plan:  # else a newer one has come meanwhile
                    del self._late[model]
                    return True
                continue
            if most_s is not None and self._clock.monotonic() - begun >= most_s:
                return False
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, HANG_RETRY_MOST_S)


class ModelPerformer(Performer):
    def __init__(self, needs: SwapNeeds, wall: PlanWall) -> None:
        self._needs = needs
        self._wall = wall
        self._evaluating = Evaluating(needs)
        self._recorded: dict[ActorId, tuple[str, Figures]] = {}  # of stable versions, by their swaps

    async def woken(self, at: Activation) -> Signal | None:
        """Also one with nothing to do hangs its plan up again."""
        return Woken() if at.actor.seq else None

    async def step(self, at: Activation, effect: Step) -> None:
        assert isinstance(effect, Publish)
        await self._wall.hang(effect.plan)

    async def work(self, at: Activation, effect: Work, call: Call) -> AsyncGenerator[Signal]:
        """One of `Worked`, whatever happens."""
        assert isinstance(effect, Do)
        try:
            await self._wall.hung(at.id.name)
            signal = await self._stage(at, effect)
        except FlotillaError as error:
            signal = Stuck(key=effect.key, problem=error.problem())
        self._needs.log.info("swap.stage", actor=str(at.id), stage=effect.key, came=type(signal).__name__)
        yield signal

    def broke(self, at: Activation, effect: Work, error: FlotillaError) -> Signal | None:
        return Stuck(key=effect.key, problem=error.problem())

    def poisoned(self, at: Activation, signal: Signal, problem: Problem) -> Signal | None:
        """What a stage reports and the actor can't digest must not hold up the model."""
        work = at.actor.work()
        return (
            Stuck(key=work.key, problem=problem) if work and not isinstance(signal, Message | Stuck) else None
        )

    async def _stage(self, at: Activation, effect: Do) -> Worked:
        match effect.stage:
            case "loading":
                await Loading(self._needs, effect, at.actor.versions.__getitem__, at.actor.sizes.least).load()
                return Loaded(key=effect.key)
            case "warming":
                return Warmed(key=effect.key, first_token_ms=await warm(self._needs, effect.candidate))
            case "evaluating":
                assert effect.order.gate is not None
                verdict = await self._evaluating.evaluate(
                    effect.order.gate, effect.candidate.id, effect.stable
                )
                return Judged(key=effect.key, verdict=verdict)
            case "retiring":
                await empty(self._needs, _going(at.actor.versions, effect))
                return Emptied(key=effect.key)
            case "shadowing" | "canary" | "promoted":
                return await self._watch(at, effect)

    # -- watching

    async def _watch(self, at: Activation, effect: Do) -> Judged:
        def show(candidate: Figures, stable: Figures) -> None:
            self._show(at, effect, candidate, stable)

        watching = Watching(self._needs, effect, show, self._stable_before(at, effect))
        match effect.stage:
            case "shadowing":
                verdict = await watching.shadow()
            case "canary":
                verdict = await watching.canary()
            case _:
                verdict = await watching.promoted()
        return Judged(key=effect.key, verdict=verdict)

    def _show(self, at: Activation, effect: Do, candidate: Figures, stable: Figures) -> None:
        """To whoever follows: figures of the moment, which are not recorded."""
        if effect.stage == "canary" and stable.replies:
            self._recorded[at.id] = (effect.swap, stable)
            for old in list(self._recorded)[:-RECORDED_MAX]:
                del self._recorded[old]
        data = {
            "swap": effect.swap,
            "stage": effect.stage,
            "step": effect.step,
            "candidate": msgspec.to_builtins(candidate),
            "stable": msgspec.to_builtins(stable),
        }
        at.publish(events.live_frame(at.actor.seq, "swap.figures", data))

    def _stable_before(self, at: Activation, effect: Do) -> Figures | None:
        """The stable version's figures from before it was replaced: as last seen here, or as recorded with
        the last step of the canary, or with the shadow."""
        swap, seen = self._recorded.get(at.id, ("", None))
        if swap == effect.swap and seen is not None:
            return seen
        verdicts = at.actor.swap.verdicts if at.actor.swap else {}
        found = [
            verdict.stable
            for stage, verdict in verdicts.items()
            if stage.startswith(("canary", "shadowing")) and verdict.stable and verdict.stable.replies
        ]
        return found[-1] if found else None


def _going(versions: Mapping[str, Version], effect: Do) -> frozenset[str]:
    """Those that can't be asked any more once it is over: a version and, if the other one runs elsewhere, all
    that run where it does."""
    ids = (effect.candidate.id, effect.stable)
    id, stays = ids if effect.undo else ids[::-1]
    base = versions[id].runs_on
    if base == versions[stays].runs_on:
        return frozenset({id})
    return frozenset({id} | {version.id for version in versions.values() if version.runs_on == base})
