"""How many turns a second reach the disk, and how long one takes.

    python -m benchmarks.durable [--quick] [--json FILE]

A turn: a message to an actor, its facts in a PostgreSQL of the benchmark's own (fsync on, group commit,
bodies sealed), its answer. Actors and load generator share a process; `per core` divides by the processor
time of that process and of PostgreSQL together. Latency is taken at a steady 1,000 turns a second, from
the intended start of each.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import uvloop

from actors.host import Host
from actors.runtime import Resident
from actors.tickets import Promise
from benchmarks.cluster import Cluster
from benchmarks.database import Database, database
from benchmarks.report import Result, arguments, report
from examples.counter import Add, Counter
from flotilla.core.calls import Call
from flotilla.core.ids import ActorId

ACTORS = 2_000
IN_FLIGHT = 512
STEADY_PER_S = 1_000
ROUNDS = 3
HERE = Call()


def main() -> None:
    options = arguments("durable", __doc__ or "").parse_args()
    report("durable", uvloop.run(measure(2.0 if options.quick else 8.0)), options.json)


async def measure(seconds: float) -> list[Result]:
    async with database() as own:
        cluster = Cluster(lambda _: [Resident(Counter)], journal=own.journal)
        host = await cluster.add("a", housekeeping=False)
        await cluster.settle()
        load = Load(host)
        await load.flat_out(1.0)  # every actor is awake and has its key
        rounds = [await per_core(load, own, seconds) for _ in range(ROUNDS)]
        latencies = [await load.steady(STEADY_PER_S, seconds) for _ in range(ROUNDS)]
        await cluster.aclose()
    rates, per_cores = zip(*rounds, strict=True)
    p99 = [float(np.percentile(taken, 99)) for taken in latencies]
    p50 = [float(np.percentile(taken, 50)) for taken in latencies]
    return [
        _result("durable_turns_per_s_per_core", per_cores, "1/s", "higher", 1_000),
        _result("durable_turn_p99_ms", p99, "ms", "lower", 20),
        _result("durable_turn_p50_ms", p50, "ms", "lower", None),
        _result("durable_turns_per_s", rates, "1/s", "higher", None),
    ]


def _result(
    measure: str,
    values: Sequence[float],
    unit: str,
    better: Literal["lower", "higher"],
    target: float | None,
) -> Result:
    middle = statistics.median(values)
    spread = (max(values) - min(values)) / middle
    return Result(
        measure=measure,
        value=middle,
        unit=unit,
        better=better,
        target=target,
        samples=len(values),
        spread=spread,
    )


async def per_core(load: Load, own: Database, seconds: float) -> tuple[float, float]:
    """Turns a second, and turns for each second of a processor."""
    began, used = time.perf_counter(), time.process_time() + own.cpu_s()
    turns = await load.flat_out(seconds)
    used = time.process_time() + own.cpu_s() - used
    return turns / (time.perf_counter() - began), turns / used


class Load:
    """Messages to a few thousand actors in turn, each another one."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._sent = 0

    async def _turn(self) -> None:
        self._sent += 1
        id = ActorId("demo", "counter", f"c-{self._sent % ACTORS}")
        promise = Promise()
        self._host.deliver(id, Add(id=str(self._sent)), promise, HERE)
        await promise.future

    async def flat_out(self, seconds: float) -> int:
        """As many as go with so many in flight; returns how many were answered."""
        before, until = self._sent, time.perf_counter() + seconds

        async def one_after_another() -> None:
            while time.perf_counter() < until:
                await self._turn()

        await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))
        return self._sent - before

    async def steady(self, per_s: int, seconds: float) -> list[float]:
        """Milliseconds from the intended start of each to its answer."""
        taken: list[float] = []
        begin = time.perf_counter() + 0.05

        async def at(start: float) -> None:
            await self._turn()
            taken.append((time.perf_counter() - start) * 1000)

        tasks: list[asyncio.Task[None]] = []
        for n in range(int(per_s * seconds)):
            start = begin + n / per_s
            if (wait := start - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(at(start)))
        await asyncio.gather(*tasks)
        return taken


if __name__ == "__main__":
    main()
