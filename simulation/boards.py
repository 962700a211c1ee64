"""The boards of a world, as Valkey holds them: one server, which may lose them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flotilla.core.clock import Clock
from flotilla.core.tallies import Tallies
from flotilla.core.versions import Plan, Plans
from flotilla.stores.memory_boards import MemoryFailureBoard, MemoryPlanBoard, MemoryTallyBoard


class Boards:
    """Implements `PlanBoard`, `TallyBoard` and `FailureBoard`. `hung` hears of each plan that is new there."""

    def __init__(self, clock: Clock, hung: Callable[[Plan], None]) -> None:
        self._clock = clock
        self._hung = hung
        self.forget()

    def forget(self) -> None:
        """A server that is started again without a disk."""
        self._plans = MemoryPlanBoard()
        self._tallies = MemoryTallyBoard(self._clock)
        self._failures = MemoryFailureBoard(self._clock)

    async def publish(self, plan: Plan) -> None:
        before = (await self._plans.plans()).get(plan.model)
        await self._plans.publish(plan)
        if (await self._plans.plans()).get(plan.model) is not before:
            self._hung(plan)

    async def plans(self) -> Plans:
        return await self._plans.plans()

    async def post(self, process: str, tallies: Tallies) -> None:
        await self._tallies.post(process, tallies)

    async def pages(self) -> dict[str, Tallies]:
        return await self._tallies.pages()

    async def note(self, version: str, reason: str) -> None:
        await self._failures.note(version, reason)

    async def failures(self) -> dict[str, str]:
        return await self._failures.failures()

    async def clear(self, version: str) -> None:
        await self._failures.clear(version)


class SeenBoard:
    """A `PlanBoard` as one process sees it: `saw` hears of each plan that it is given, unless it had it before."""

    def __init__(self, board: Any, saw: Callable[[Plan], None]) -> None:
        self._board = board
        self._saw = saw
        self._last: dict[str, int] = {}
        self.publish = board.publish
        self.remove = board.remove

    async def plans(self) -> Plans:
        plans: Plans = await self._board.plans()
        for model, plan in plans.items():
            if self._last.get(model) != plan.revision:
                self._last[model] = plan.revision
                self._saw(plan)
        return plans
