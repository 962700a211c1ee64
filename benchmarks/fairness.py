"""Does an actor that gets 10,000 messages a second slow down a thousand others in its host?

    python -m benchmarks.fairness [--quick] [--json FILE]

The quiet ones are asked a thousand times a second in all, evenly, and record each time (PostgreSQL, fsync
on); latency counts from the intended start. With and without the noise, in turn. The noise comes in gusts
of a hundred every 10 ms, as from a busy link. Beside it, without a target, the same with a memory journal:
there a turn takes so little time that each gust shows.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import suppress

import numpy as np
import uvloop

from actors.host import Host
from actors.runtime import Resident
from actors.tickets import Promise
from benchmarks.cluster import Cluster
from benchmarks.database import database
from benchmarks.report import Result, arguments, report
from examples.counter import Add, Counter, Total
from flotilla.core.calls import Call
from flotilla.core.errors import MailboxFull
from flotilla.core.ids import ActorId
from flotilla.stores.memory_journal import MemoryJournal

QUIET = 1_000
QUIET_PER_S = 1_000
GUST, GUST_EVERY_S = 100, 0.01
HERE = Call()
NOISY = ActorId("demo", "counter", "noisy")


def main() -> None:
    options = arguments("fairness", __doc__ or "").parse_args()
    rounds, seconds = (3, 3.0) if options.quick else (7, 8.0)
    report("fairness", uvloop.run(measure(rounds, seconds)), options.json)


async def measure(rounds: int, seconds: float) -> list[Result]:
    async with database() as own:
        durable = await compare(Cluster(_residents, journal=own.journal), rounds, seconds)
    memory = await compare(Cluster(_residents, journal=MemoryJournal()), rounds, seconds)
    return [
        _ratio("quiet_p99_ratio", durable, 1.1),
        *_times("quiet_p99", durable),
        _ratio("quiet_p99_ratio_in_memory", memory, None),
        *_times("quiet_p99_in_memory", memory),
    ]


def _residents(_: object) -> list[Resident]:
    return [Resident(Counter)]


def _ratio(measure: str, pairs: list[tuple[float, float]], target: float | None) -> Result:
    ratios = [beside / alone for alone, beside in pairs]
    middle = statistics.median(ratios)
    return Result(
        measure=measure,
        value=middle,
        unit="x",
        target=target,
        better="lower",
        samples=len(ratios),
        spread=(max(ratios) - min(ratios)) / middle,
    )


def _times(measure: str, pairs: list[tuple[float, float]]) -> list[Result]:
    alone, beside = (statistics.median(values) for values in zip(*pairs, strict=True))
    return [
        Result(measure=f"{measure}_alone_ms", value=alone, unit="ms", better="lower"),
        Result(measure=f"{measure}_beside_noise_ms", value=beside, unit="ms", better="lower"),
    ]


async def compare(cluster: Cluster, rounds: int, seconds: float) -> list[tuple[float, float]]:
    """99th percentiles in ms, without the noise and with it; which comes first changes every round."""
    host = await cluster.add("a", housekeeping=False)
    await cluster.settle()
    quiet = Quiet(host)
    await quiet.p99(2.0)
    pairs: list[tuple[float, float]] = []
    for number in range(rounds):
        first, second = await one_round(quiet, seconds, noise_first=bool(number % 2))
        pairs.append((first, second))
    await cluster.aclose()
    return pairs


async def one_round(quiet: Quiet, seconds: float, *, noise_first: bool) -> tuple[float, float]:
    if noise_first:
        beside = await beside_noise(quiet, seconds)
        return await quiet.p99(seconds), beside
    return await quiet.p99(seconds), await beside_noise(quiet, seconds)


async def beside_noise(quiet: Quiet, seconds: float) -> float:
    async with asyncio.TaskGroup() as tasks:
        noise = tasks.create_task(make_noise(quiet.host))
        p99 = await quiet.p99(seconds)
        noise.cancel()
    return p99


async def make_noise(host: Host) -> None:
    at = time.perf_counter()
    while True:
        with suppress(MailboxFull):  # its own limit; the others don't see it
            for _ in range(GUST):
                host.deliver(NOISY, Total(), None, HERE)
        at += GUST_EVERY_S
        await asyncio.sleep(max(0.0, at - time.perf_counter()))


class Quiet:
    """A thousand actors, each asked about once a second."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._sent = 0
        self._taken: list[float] = []
        self._waiting: set[asyncio.Future[int]] = set()

    async def p99(self, seconds: float) -> float:
        """Milliseconds from the intended start of an ask to its answer."""
        self._taken, begin = [], time.perf_counter() + 0.01
        for n in range(int(QUIET_PER_S * seconds)):
            start = begin + n / QUIET_PER_S
            if (wait := start - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self._ask(start)
        while self._waiting:
            await asyncio.sleep(0.001)
        return float(np.percentile(self._taken, 99))

    def _ask(self, start: float) -> None:
        self._sent += 1
        promise = Promise()
        self._waiting.add(promise.future)
        promise.future.add_done_callback(lambda done: self._answered(done, start))
        id = ActorId("demo", "counter", f"quiet-{self._sent % QUIET}")
        self.host.deliver(id, Add(id=str(self._sent)), promise, HERE)

    def _answered(self, done: asyncio.Future[int], start: float) -> None:
        self._waiting.discard(done)
        done.result()  # an error is one of the benchmark
        self._taken.append((time.perf_counter() - start) * 1000)


if __name__ == "__main__":
    main()
