"""The boards without a server: see `flotilla/stores/valkey_boards.py`."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from flotilla.core.clock import Clock, SystemClock
from flotilla.core.limits import LIMITS
from flotilla.core.tallies import Tallies
from flotilla.core.versions import Plan, Plans

T = TypeVar("T")


class MemoryPlanBoard:
    """Implements `PlanBoard`."""

    def __init__(self) -> None:
        self._plans: Plans = {}

    async def publish(self, plan: Plan) -> None:
        there = self._plans.get(plan.model)
        if there is None or plan.revision >= there.revision:
            self._plans = self._plans | {plan.model: plan}

    async def plans(self) -> Plans:
        """The same object until something changes: not to be written to."""
        return self._plans

    async def remove(self, model: str) -> None:
        self._plans = {name: plan for name, plan in self._plans.items() if name != model}


class _Pages(Generic[T]):
    """By name, each for a while."""

    def __init__(self, clock: Clock, kept_s: float) -> None:
        self._clock = clock
        self._kept_s = kept_s
        self._pages: dict[str, tuple[float, T]] = {}

    def put(self, name: str, page: T) -> None:
        self._pages[name] = self._clock.monotonic(), page

    def all(self) -> dict[str, T]:
        oldest = self._clock.monotonic() - self._kept_s
        self._pages = {name: page for name, page in self._pages.items() if page[0] > oldest}
        return {name: page for name, (_, page) in sorted(self._pages.items())}

    def drop(self, name: str) -> None:
        self._pages.pop(name, None)


class MemoryTallyBoard:
    """Implements `TallyBoard`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._pages = _Pages[bytes](clock or SystemClock(), LIMITS.tallies_kept_s)

    async def post(self, process: str, tallies: Tallies) -> None:
        """A copy: whoever counts goes on counting."""
        self._pages.put(process, msgspec.msgpack.encode(tallies))

    async def pages(self) -> dict[str, Tallies]:
        return {name: msgspec.msgpack.decode(page, type=Tallies) for name, page in self._pages.all().items()}


class MemoryFailureBoard:
    """Implements `FailureBoard`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._pages = _Pages[str](clock or SystemClock(), LIMITS.failures_kept_s)

    async def note(self, version: str, reason: str) -> None:
        self._pages.put(version, reason[: LIMITS.failure_reason_max])

    async def failures(self) -> dict[str, str]:
        return self._pages.all()

    async def clear(self, version: str) -> None:
        self._pages.drop(version)
