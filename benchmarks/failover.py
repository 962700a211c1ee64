"""How long a conversation is silent whose host is killed under load: `python -m benchmarks.failover`.

Three hosts, durable (PostgreSQL with fsync, Valkey with AOF), every customer in the middle of a reply all
the time. One host after another gets SIGKILL. Counted are the conversations that were awake at it and to
which a reply was on its way: from the kill to the end of the silence that it began, as their customers saw
it. All histories are checked in the end.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import numpy as np

from benchmarks.crowd import DOCUMENTS, Crowd, opened
from benchmarks.faults import busiest, hosts, process_of, until
from benchmarks.fleet import OwnFleet
from benchmarks.report import Result, arguments, report
from simulation.observations import Received, Violation

HOSTS = 3
TOKEN_S = 0.1  # replies of five seconds
TARGET_S = 2.0
WARM_UP_S = 4.0
# What was on its way when its host died still arrives, and is not counted.
IN_FLIGHT_S = 0.1
HEAR_AGAIN_S = 5.0
SETTLE_S = 6.0  # a host that is back gets its actors back

LOST = {"lost", "unfinished", "stuck", "forgotten"}
DOUBLED = {"doubled", "overlap", "effect"}


async def measure(fleet: OwnFleet, customers: int, kills: int) -> tuple[list[list[float]], list[Violation]]:
    """Seconds of silence by conversation, for each kill; and every broken promise."""
    crowd = Crowd(fleet, await opened(fleet, customers), seed=7)
    crowd.start()
    silences: list[list[float]] = []
    try:
        await asyncio.sleep(WARM_UP_S)
        for number in range(kills):
            if number:
                await until(lambda: len(hosts(fleet)) == HOSTS)
                await asyncio.sleep(SETTLE_S)
            silences.append(await kill_one(fleet, crowd))
        return silences, await crowd.finish()
    finally:
        await crowd.aclose()


async def kill_one(fleet: OwnFleet, crowd: Crowd) -> list[float]:
    """Returns when everybody has had time to hear again."""
    host = await asyncio.to_thread(busiest, fleet)
    victim = await asyncio.to_thread(process_of, fleet, host)
    there = await asyncio.to_thread(awake_at, fleet, host["name"])
    crowd.log.fault(f"kill {host['name']}")
    at = crowd.log.now
    victim.kill()
    await asyncio.sleep(HEAR_AGAIN_S)
    return [seconds for session in there if (seconds := silence(crowd, session, at)) is not None]


def awake_at(fleet: OwnFleet, host: str) -> list[str]:
    listed = fleet.http.get("/v1/actors", params={"kind": "session", "limit": 500}).json()["actors"]
    return [
        one["actor"].removeprefix("session/") for one in listed if one["host"] == host and one["followers"]
    ]


def silence(crowd: Crowd, session: str, killed_at: float) -> float | None:
    """From the kill to the first event that its host can't have sent; None if no reply was on its way."""
    mine = [o for o in crowd.log.observations if isinstance(o, Received) and o.session == session]
    before = [o for o in mine if o.at <= killed_at]
    if not before or before[-1].type != "reply.delta":
        return None
    after = (o.at - killed_at for o in mine if o.at > killed_at + IN_FLIGHT_S)
    return next(after, float("inf"))


def results(silences: Sequence[Sequence[float]], violations: Sequence[Violation]) -> list[Result]:
    everyone = [seconds for of_kill in silences for seconds in of_kill]
    p99s = [float(np.percentile(of_kill, 99)) for of_kill in silences if of_kill]
    p99 = float(np.percentile(everyone, 99))
    spread = (max(p99s) - min(p99s)) / float(np.median(p99s))
    counts = Counter(group(violation.rule) for violation in violations)
    recovered = Result(
        measure="recover_p99_s",
        value=round(p99, 3),
        unit="s",
        better="lower",
        target=TARGET_S,
        samples=len(everyone),
        spread=round(spread, 3),
    )
    median = Result(
        measure="recover_p50_s", value=round(float(np.median(everyone)), 3), unit="s", better="lower"
    )
    broken = [
        Result(measure=name, value=counts[name], unit="", better="lower", target=0)
        for name in ("lost", "doubled", "gaps")
    ]
    return [recovered, *broken, median]


def group(rule: str) -> str:
    """Whatever the checker finds is one of the three."""
    return "lost" if rule in LOST else "doubled" if rule in DOUBLED else "gaps"


def main() -> None:
    options = arguments("failover", "The silence of a conversation whose host is killed.").parse_args()
    customers, kills = (60, 1) if options.quick else (120, 6)
    fleet = OwnFleet(
        FLOTILLA_HOSTS=str(HOSTS), FLOTILLA_SCRIPTED_TOKEN_S=str(TOKEN_S), FLOTILLA_TRACES="none"
    )
    try:
        fleet.up().know("bank", DOCUMENTS)
        silences, violations = asyncio.run(measure(fleet, customers, kills))
    finally:
        fleet.down()
    for violation in violations:
        print(violation)
    for number, of_kill in enumerate(silences, 1):
        print(f"kill {number}: {' '.join(f'{seconds:.2f}' for seconds in sorted(of_kill))}")
    report("failover", results(silences, violations), options.json)


if __name__ == "__main__":
    main()
