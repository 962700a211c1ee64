"""Does an actor that gets 10,000 messages a second slow down a thousand others in its host?

    python -m benchmarks.fairness [--quick] [--json FILE]

The quiet ones are asked a thousand times a second in all, evenly; latency counts from the intended start.
With and without the noise, in turn. The noise comes in gusts of a hundred, every 10 ms, as from a busy
link. Memory journal: nothing is written, so that no commit hides the wait.
"""

from __future__ import annotations

import asyncio
import statistics
import time

import numpy as np
import uvloop

from actors.host import Host
from actors.runtime import Resident
from actors.tickets import Promise
from benchmarks.cluster import Cluster
from benchmarks.report import Result, arguments, report
from examples.counter import Add, Counter, Total
from flotilla.core.calls import Call
from flotilla.core.ids import ActorId

QUIET = 1_000
QUIET_PER_S = 1_000
GUST, GUST_EVERY_S = 100, 0.01
HERE = Call()
NOISY = ActorId("demo", "counter", "noisy")


def main() -> None:
    options = arguments("fairness", __doc__ or "").parse_args()
    report("fairness", uvloop.run(measure(*((3, 4.0) if options.quick else (5, 10.0)))), options.json)


async def measure(rounds: int, seconds: float) -> list[Result]:
    cluster = Cluster(lambda _: [Resident(Counter)])
    host = await cluster.add("a", housekeeping=False)
    for n in range(QUIET):
        await host.ask(_quiet(n), Add(id="1"), HERE)
    await steady(host, 1.0)
    ratios, heard, alone, beside = [], 0, [], []
    for _ in range(rounds):
        without = await steady(host, seconds)
        noise = asyncio.create_task(make_noise(host))
        with_ = await steady(host, seconds)
        noise.cancel()
        heard += (await asyncio.gather(noise, return_exceptions=True)) != []
        alone.append(float(np.percentile(without, 99)))
        beside.append(float(np.percentile(with_, 99)))
        ratios.append(beside[-1] / alone[-1])
    await cluster.aclose()
    middle = statistics.median(ratios)
    return [
        Result(
            measure="quiet_p99_ratio",
            value=middle,
            unit="x",
            target=1.1,
            better="lower",
            samples=rounds,
            spread=(max(ratios) - min(ratios)) / middle,
        ),
        Result(measure="quiet_p99_ms", value=statistics.median(beside), unit="ms", better="lower"),
        Result(measure="quiet_p99_alone_ms", value=statistics.median(alone), unit="ms", better="lower"),
    ]


def _quiet(n: int) -> ActorId:
    return ActorId("demo", "counter", f"quiet-{n % QUIET}")


async def make_noise(host: Host) -> None:
    at = time.perf_counter()
    while True:
        for _ in range(GUST):
            host.deliver(NOISY, Total(), None, HERE)
        at += GUST_EVERY_S
        await asyncio.sleep(max(0.0, at - time.perf_counter()))


async def steady(host: Host, seconds: float) -> list[float]:
    """Milliseconds from the intended start of each ask to its answer."""
    taken: list[float] = []
    begin = time.perf_counter() + 0.01
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Future[int]] = set()
    for n in range(int(QUIET_PER_S * seconds)):
        start = begin + n / QUIET_PER_S
        if (wait := start - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        promise = Promise()
        host.deliver(_quiet(n), Total(), promise, HERE)
        pending.add(promise.future)
        promise.future.add_done_callback(
            lambda done, start=start: (
                pending.discard(done),
                taken.append((time.perf_counter() - start) * 1000),
            )
        )
    while pending:
        await asyncio.sleep(0.001)
    assert loop.is_running()
    return taken


if __name__ == "__main__":
    main()
