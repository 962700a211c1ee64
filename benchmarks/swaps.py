"""Versions of a model swapped back and forth under a crowd: `python -m benchmarks.swaps`.

Open WebSocket conversations ask all the time. First some swaps with nothing broken, and a while without one behind
each; then many while the controller, replicas and sometimes a host get SIGKILL at random times. Every fifth is
rolled back by hand from its canary, every seventh reloads the replicas in place. Each word of a reply names
the version that made it, so that a mixed reply can't hide. In the end candidates that are slow, that make
things up and that break off are swapped to: how long until the fleet has found out and everybody is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence

import msgspec
import numpy as np

from benchmarks.crowd import DOCUMENTS, Crowd, opened
from benchmarks.fleet import OwnFleet
from benchmarks.report import Result, arguments, report
from benchmarks.swap_driving import LAX, Driver, Late, View, order
from benchmarks.swap_judging import FirstToken, Judged, first_tokens, judge
from benchmarks.swap_kills import kills, perform
from benchmarks.swap_regressions import Found, regressions
from benchmarks.swap_versions import AMBER, BERYL, MODEL, marked
from simulation.observations import Violation

SEED = 5
REPLICAS = 2
HOSTS = 2
CUSTOMERS = 16
KILLS_WITHIN_S = 10.0
HAND_BACK_AFTER_S = 1.0
SETTLE_S = 3.0  # the old version's processes end
TTFT_RATIO_MAX = 1.2
BACK_MAX_S = 2.0


class Size(msgspec.Struct, frozen=True, kw_only=True):
    calm: int
    """Swaps with nothing broken,"""
    swaps: int
    """and with kills."""
    steady_s: float
    """Behind each of the calm ones."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the run, on the customers' clock."""

    name: str
    begun_at: float
    ended_at: float


class Run(msgspec.Struct):
    spans: list[Span] = []
    ends: Counter[str] = msgspec.field(default_factory=Counter)
    wrong: list[str] = []
    killed: Counter[str] = msgspec.field(default_factory=Counter)
    judged: Judged = msgspec.field(default_factory=Judged)
    violations: list[Violation] = []
    firsts: list[FirstToken] = []


# -- the swaps


class Swapping:
    """Back and forth between two versions. `stable` is the one that answers now."""

    def __init__(self, fleet: OwnFleet, crowd: Crowd, run: Run, seed: int) -> None:
        self._fleet, self._crowd, self._run, self._seed = fleet, crowd, run, seed
        self._driver = Driver(fleet, MODEL)
        self._number = 0
        self.stable = AMBER

    async def one(self, *, broken: bool) -> None:
        self._number += 1
        number, to = self._number, BERYL if self.stable == AMBER else AMBER
        chosen = kills(self._seed, number, KILLS_WITHIN_S) if broken else []
        dying = [asyncio.create_task(perform(self._fleet, self._crowd, kill)) for kill in chosen]
        begun = self._crowd.log.now
        try:
            wanted, ended = await self._swap(number, to, LAX if broken else {})
        except (Late, ValueError) as error:
            wanted, ended = "an end", {"end": "none", "reason": str(error)}
        self._run.killed.update(filter(None, await asyncio.gather(*dying)))
        took_s = self._crowd.log.now - begun
        self._note(f"{number:3} to {to} in {took_s:4.1f} s, {len(chosen)} kills", wanted, ended)
        self.stable = (await self._driver.view())["serving"]["stable"]

    async def _swap(self, number: int, to: str, budgets: dict[str, float]) -> tuple[str, View]:
        """How it was to end, and as what it ended."""
        key = f"swap-{number}"
        if number % 5 == 0:
            return "rolled_back", await self._back_by_hand(to, key, budgets)
        if number % 7 == 0:
            return "done", await self._driver.swapped(to, order(in_place=True), key)
        return "done", await self._driver.swapped(to, order(20, 60, budgets=budgets), key)

    async def _back_by_hand(self, to: str, key: str, budgets: dict[str, float]) -> View:
        id = await self._driver.begin(to, order(20, 60, hold_s=120.0, budgets=budgets), key)
        await self._driver.until(lambda view: view["swap"]["stage"] == "canary", "the canary")
        await asyncio.sleep(HAND_BACK_AFTER_S)
        await self._driver.steer("rollback", "as every fifth one")
        return await self._driver.ended(id)

    def _note(self, what: str, wanted: str, ended: View) -> None:
        self._run.ends[ended["end"]] += 1
        said = f"{what}: {ended['end']} {ended['reason']}"
        if ended["end"] != wanted:
            self._run.wrong.append(f"{said}; it was to be {wanted}")
        print(said, file=sys.stderr, flush=True)


async def run(fleet: OwnFleet, size: Size) -> Run:
    driver, found = Driver(fleet, MODEL), Run()
    for id in (AMBER, BERYL):
        await driver.add(marked(id))
    if (await driver.view())["serving"]["stable"] != AMBER:
        await driver.swapped(AMBER, order(), "the first")
    crowd = Crowd(fleet, await opened(fleet, CUSTOMERS), SEED)
    swapping = Swapping(fleet, crowd, found, SEED)
    crowd.start()
    try:
        await crowd.until_replies(CUSTOMERS * 2)
        for broken, number in ((False, size.calm), (True, size.swaps)):
            for _ in range(number):
                async with _span(crowd, found, "kills" if broken else "calm"):
                    await swapping.one(broken=broken)
                if not broken:  # in between, so that whatever else this machine does weighs on both
                    await _steady(crowd, found, size)
        found.violations = await crowd.finish()
    finally:
        await crowd.aclose()
    found.judged = judge(crowd.log.observations)
    found.firsts = first_tokens(crowd.log.observations)
    return found


async def _steady(crowd: Crowd, found: Run, size: Size) -> None:
    await asyncio.sleep(SETTLE_S)
    async with _span(crowd, found, "steady"):
        await asyncio.sleep(size.steady_s)


@contextlib.asynccontextmanager
async def _span(crowd: Crowd, found: Run, name: str) -> AsyncGenerator[None]:
    begun_at = crowd.log.now
    yield
    found.spans.append(Span(name=name, begun_at=begun_at, ended_at=crowd.log.now))


# -- what came of it


def first_token_of(found: Run, name: str, percent: float) -> tuple[float, int]:
    """Milliseconds over all spans of that name, and of how many replies."""
    spans = [span for span in found.spans if span.name == name]
    mine = [f.seconds for f in found.firsts if any(s.begun_at <= f.asked_at < s.ended_at for s in spans)]
    return (round(1000 * float(np.percentile(mine, percent)), 1) if mine else 0.0), len(mine)


def results(found: Run, size: Size, back: Sequence[Found]) -> list[Result]:
    judged = found.judged
    zeros = {
        "failed_replies": judged.failed,
        "replies_cut": judged.cut,
        "replies_with_gaps": judged.gaps,
        "replies_doubled": judged.doubled,
        "replies_mixed": judged.mixed,
        "promises_broken": len(found.violations),
        "swaps_with_another_end": len(found.wrong),
    }
    shown = {
        "swaps": size.calm + size.swaps,
        "kills": sum(found.killed.values()),
        "replies": judged.replies,
        "replies_of_the_plain_one": judged.fell_back,
        "replies_whose_rest_came_with_the_end": judged.rest_with_end,
    }
    return [
        *(Result(measure=m, value=n, unit="", better="lower", target=0) for m, n in zeros.items()),
        *(Result(measure=m, value=n, unit="", better="higher") for m, n in shown.items()),
        *_first_tokens(found),
        *(_back(one) for one in back),
    ]


def _first_tokens(found: Run) -> list[Result]:
    results: list[Result] = []
    steady, _ = first_token_of(found, "steady", 99)
    for name in ("steady", "calm", "kills"):
        p50, _ = first_token_of(found, name, 50)
        p99, samples = first_token_of(found, name, 99)
        named = {"steady": "steady", "calm": "swaps", "kills": "swaps_and_kills"}[name]
        results.append(Result(measure=f"ttft_p50_ms_{named}", value=p50, unit="ms", better="lower"))
        results.append(
            Result(measure=f"ttft_p99_ms_{named}", value=p99, unit="ms", better="lower", samples=samples)
        )
        if name != "steady" and samples:
            target = TTFT_RATIO_MAX if name == "calm" else None
            ratio = round(p99 / steady, 3)
            results.append(
                Result(measure=f"ttft_p99_{named}_ratio", value=ratio, unit="", better="lower", target=target)
            )
    return results


def _back(found: Found) -> Result:
    return Result(
        measure=f"back_after_{found.what}_s",
        value=round(found.seconds, 2),
        unit="s",
        better="lower",
        target=BACK_MAX_S,
        samples=found.rounds,
        spread=round(found.spread, 2),
    )


def tell(found: Run) -> None:
    """What a number alone would not explain."""
    for line in (*found.wrong, *found.judged.why[:20], *map(str, found.violations[:20])):
        print(line)
    makers, killed = dict(found.judged.makers), dict(found.killed)
    print(f"ends {dict(found.ends)}, kills {killed}, replies by {makers}", flush=True)


def main() -> None:
    parser = arguments("swaps", "Swaps under load, with kills; and roll-backs that the fleet decides on.")
    parser.add_argument("--swaps", type=int, default=50, help="how many with kills")
    parser.add_argument("--calm", type=int, default=8, help="how many without")
    options = parser.parse_args()
    size = (
        Size(calm=2, swaps=3, steady_s=8)
        if options.quick
        else Size(calm=options.calm, swaps=options.swaps, steady_s=12)
    )
    fleet = OwnFleet(FLOTILLA_HOSTS=str(HOSTS), FLOTILLA_MODELS=str(REPLICAS), FLOTILLA_TRACES="none")
    try:
        fleet.up().know("bank", DOCUMENTS)
        found = asyncio.run(run(fleet, size))
        tell(found)
        back = asyncio.run(regressions(fleet, rounds=1 if options.quick else 3))
    finally:
        fleet.down()
    report("swaps", results(found, size, back), options.json)


if __name__ == "__main__":
    main()
