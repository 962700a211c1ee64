"""Candidates that are worse, and how long until the fleet has found out by itself and everybody is back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from actors.serving.swap_watching import Counted
from benchmarks.crowd import Crowd, opened
from benchmarks.fleet import OwnFleet
from benchmarks.swap_driving import Driver, order
from benchmarks.swap_versions import MODEL, version
from flotilla.core.policy.burning import burnt
from flotilla.core.swap_orders import Budgets
from flotilla.core.tallies import Tallies, Tally
from flotilla.core.versions import Plan
from flotilla.stores import valkey
from flotilla.stores.valkey_boards import ValkeyPlanBoard, ValkeyTallyBoard
from simulation.observations import Received

GOOD = "good"
WORSE: dict[str, dict[str, Any]] = {
    "slow": {"slow_ms": 400.0},
    "invented": {"garble_share": 1.0},
    "broken": {"fail_share": 0.3},
}
CUSTOMERS = 16
SEED = 17
LOOK_EVERY_S = 0.02
WATCH_ENDS_S = 5.0
# Processes hang their tallies up this often, at least: what is read there is not older.
POSTED_WITHIN_S = 0.6


class Back(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds` from the first moment at which the budget can have burnt to the last turn that was begun on the
    candidate, or to the route being back, whichever is later; `reason` in the fleet's words."""

    seconds: float
    reason: str


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds` is the median over the rounds (see `Back`)."""

    what: str
    seconds: float
    rounds: int
    spread: float


class Moments(msgspec.Struct):
    """On the customers' clock."""

    canary_at: float = 0.0
    posted_at: float = 0.0
    back_at: float = 0.0
    over: bool = False


class Trial:
    """Worse versions of a model on trial before a crowd that asks it."""

    def __init__(self, fleet: OwnFleet, crowd: Crowd, model: str = MODEL) -> None:
        self._fleet, self._crowd, self._model = fleet, crowd, model
        self._driver = Driver(fleet, model)
        self._good = f"{model}@{GOOD}"

    async def back(self, what: str, key: str) -> Back:
        """Raises `AssertionError` if the swap ended in another way."""
        id, moments = f"{self._model}@{what}", Moments()
        watching = asyncio.create_task(self._watch(id, moments))
        try:
            ended = await self._driver.swapped(id, order(50, hold_s=120.0), key)
        finally:
            moments.over = True
            await asyncio.wait([watching], timeout=WATCH_ENDS_S)
            watching.cancel()
        assert ended["end"] == "rolled_back", ended
        # The fleet may have looked, and turned back, between two looks of ours.
        posted_at = moments.posted_at or moments.back_at
        burnt_at = posted_at - POSTED_WITHIN_S
        if what != "broken":  # a reply that breaks off goes on elsewhere: its customer sees nothing of it
            burnt_at = min(posted_at, self._enough_at(id, moments.canary_at))
        back_at = max(moments.back_at, self._last_begun_at(id))
        return Back(seconds=back_at - burnt_at, reason=ended["reason"])

    async def _watch(self, id: str, moments: Moments) -> None:
        """At the boards, as any process of the fleet may."""
        client = valkey.connect(self._fleet.local.valkey.url)
        plans, tallies, counted = ValkeyPlanBoard(client), ValkeyTallyBoard(client), Counted()
        try:
            while not moments.over:
                plan = (await plans.plans()).get(self._model)
                self._note(id, plan, counted.take(await tallies.pages()), moments)
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await client.aclose()

    def _note(self, id: str, plan: Plan | None, counted: Tallies, moments: Moments) -> None:
        route, now = plan.route if plan else None, self._crowd.log.now
        if route is not None and route.candidate == id and route.canary.percent > 0:
            moments.canary_at = moments.canary_at or now
            candidate, good = (counted.get(each, Tally()).figures(each) for each in (id, self._good))
            if not moments.posted_at and burnt(candidate, good, Budgets()):
                moments.posted_at = now
        elif moments.canary_at and not moments.back_at:
            moments.back_at = now

    # -- as customers saw it

    def _enough_at(self, id: str, since: float) -> float:
        """When they had seen so many replies of either version that its figures mean something."""
        return max(self._nth_at(each, since, Budgets().replies_min) for each in (id, self._good))

    def _nth_at(self, id: str, since: float, number: int) -> float:
        ends = [o.at for o in self._seen("reply.completed", id) if o.at >= since]
        return ends[number - 1] if len(ends) >= number else float("inf")

    def _last_begun_at(self, id: str) -> float:
        return max(o.at for o in self._seen("reply.started", id))

    def _seen(self, type: str, id: str) -> Iterator[Received]:
        for o in self._crowd.log.observations:
            if isinstance(o, Received) and o.type == type and o.model == id:
                yield o


async def prepare(driver: Driver, model: str = MODEL) -> None:
    """Registers the good version and the worse ones."""
    await driver.add(version(f"{model}@{GOOD}", mode="quote"))
    for name, worse in WORSE.items():
        await driver.add(version(f"{model}@{name}", mode="quote", **worse))


async def regressions(fleet: OwnFleet, rounds: int) -> list[Found]:
    driver = Driver(fleet, MODEL)
    await prepare(driver)
    await driver.swapped(f"{MODEL}@{GOOD}", order(), "the good one")
    crowd = Crowd(fleet, await opened(fleet, CUSTOMERS), SEED)
    crowd.start()
    try:
        await crowd.until_replies(CUSTOMERS * 2)
        trial = Trial(fleet, crowd)
        return [await _rounds(trial, what, rounds) for what in WORSE]
    finally:
        await crowd.aclose()


async def _rounds(trial: Trial, what: str, rounds: int) -> Found:
    backs = [await trial.back(what, f"{what} {number}") for number in range(rounds)]
    for back in backs:
        print(f"back after {back.seconds:.2f} s ({back.reason})", flush=True)
    taken = [back.seconds for back in backs]
    median = float(np.median(taken))
    return Found(what=what, seconds=median, rounds=rounds, spread=(max(taken) - min(taken)) / median)
