"""Plays a scenario's phases one after the other, and notes what each of them measured."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, cast

import numpy as np

from benchmarks.load.orders import CatchUp as CatchUpOrder
from benchmarks.load.orders import Connect, Cut, Play, Played
from benchmarks.load.scenario import CatchUp, Knee, Phase, Ramp, Scenario, Steady, Storm
from benchmarks.load.workers import Workers

LEAD_S = 0.3  # between an order and the moment from which it counts
CUT_AFTER_S = 3.0  # of a storm's phase, so that replies run when the sockets are cut

Do = Callable[[str], Awaitable[None]]


class Phases:
    """`do` does something to the fleet, by name; `mark` writes down what was done."""

    def __init__(
        self, scenario: Scenario, workers: Workers, began: float, do: Do, mark: Callable[[str, str], None]
    ) -> None:
        self._scenario = scenario
        self._workers = workers
        self._began = began
        self._do = do
        self._mark = mark
        self._knee = 0.0  # as a load
        self.played: list[dict[str, Any]] = []
        self.measures: defaultdict[str, float] = defaultdict(float)
        self.title = ""
        self._window: tuple[float, float] | None = None

    async def run(self) -> None:
        for n, phase in enumerate(self._scenario.phases):
            await self._run(n, phase)

    async def _run(self, n: int, phase: Phase) -> None:
        self.title = phase.title
        self._window = None
        self._mark("phase", phase.title)
        from_s = time.monotonic() - self._began
        actions = [asyncio.create_task(self._act(action.do, action.at_s)) for action in phase.actions]
        try:
            await self._play(n, phase)
            await asyncio.gather(*actions)
        finally:
            for action in actions:
                action.cancel()
        to_s = time.monotonic() - self._began
        if self._window:  # that of its turns, without what is waited before and after them
            from_s, to_s = (at - self._began for at in cast(tuple[float, float], self._window))
        self.played.append({"name": phase.title, "from_s": round(from_s, 3), "to_s": round(to_s, 3)})

    async def _act(self, do: str, at_s: float) -> None:
        await asyncio.sleep(at_s)
        self._mark("action", do)
        await self._do(do)
        self._mark("action", f"{do}: done")

    async def _play(self, n: int, phase: Phase) -> None:
        match phase:
            case Ramp():
                per_s = phase.per_s / len(self._workers.workers)
                await self._workers.all(Connect(per_s=per_s))
                await asyncio.sleep(phase.rest_s)
            case Steady():
                load = phase.knees * self._knee if phase.knees else phase.load
                await self._steady(n, phase.title, phase.seconds, load)
            case Storm():
                await self._storm(n, phase)
            case CatchUp():
                await self._catch_up(phase)
            case Knee():
                await self._find_knee(n, phase)

    async def _steady(self, n: int, part: str, seconds: float, load: float) -> Played:
        at = time.monotonic() + LEAD_S
        self._window = (self._window[0] if self._window else at, at + seconds)
        return await self._workers.play(Play(part=f"{n}-{part}", phase=n, at=at, seconds=seconds, load=load))

    async def _storm(self, n: int, phase: Storm) -> None:
        share = None if not phase.sockets else -(-phase.sockets // len(self._workers.workers))
        cut = Cut(at=time.monotonic() + LEAD_S + CUT_AFTER_S, sockets=share, within_s=phase.within_s)
        if phase.load:
            playing = asyncio.create_task(self._steady(n, phase.title, phase.seconds, phase.load))
            cuts = await self._workers.all(cut)
            await playing
        else:
            cuts = await self._workers.all(cut)
        back = [ms for done in cuts for ms in done.milliseconds]
        missing = sum(done.missing for done in cuts)
        worst = phase.within_s if missing else max(back, default=0.0) / 1000
        self.measures["storm_recovered_s"] = max(self.measures["storm_recovered_s"], worst)
        self.measures["storm_sockets"] += len(back) + missing
        self.measures["storm_missing"] += missing

    async def _catch_up(self, phase: CatchUp) -> None:
        order = CatchUpOrder(sessions=phase.sessions, events=phase.events, times=phase.times)
        taken = (await self._workers.first(order)).milliseconds
        self.measures["catch_up_1000_p50_ms"] = float(np.percentile(taken, 50))
        self.measures["catch_up_1000_p99_ms"] = float(np.percentile(taken, 99))

    async def _find_knee(self, n: int, phase: Knee) -> None:
        """The highest load of which the promised share of turns was good; with its goodput."""
        load = phase.load
        for step in range(phase.steps):
            played = await self._steady(n, f"{phase.title}-{step}", phase.step_s, load)
            per_s, good_per_s = played.due / phase.step_s, played.good / phase.step_s
            self._mark("knee", f"{per_s:.1f} turns/s: {good_per_s:.1f} good, {played.failed} failed")
            if played.due and played.good < phase.share * played.due:
                self.measures["knee_broken"] = 1.0
                break
            self._knee = load
            self.measures["knee_turns_per_s"] = per_s
            self.measures["knee_goodput_per_s"] = good_per_s
            load *= phase.factor
        else:
            self._mark("knee", "no step broke the SLO: the knee is higher")
        self._knee = self._knee or phase.load
