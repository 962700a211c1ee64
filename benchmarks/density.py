"""How many actors fit: memory of an idle one, of a sleeping one, and how fast they wake.

    python -m benchmarks.density [--quick] [--json FILE]

Activations are opened sessions, recorded in a PostgreSQL of the benchmark's own (fsync on). The peer
is a Ray actor that does nothing. A sleeping identity is rows in PostgreSQL: what it costs in memory is
what host and PostgreSQL hold more with a million of them than with a tenth, while ten thousand others are
awake.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import psutil
import ray
import uvloop

from actors.cluster import calm_collector
from actors.host import Host
from actors.runtime import Resident
from actors.tickets import Promise
from benchmarks.cluster import Cluster
from benchmarks.database import Database, database
from benchmarks.report import Result, arguments, report
from examples.counter import Add, Counter, Total
from flotilla.core import signals
from flotilla.core.calls import Call
from flotilla.core.ids import ActorId
from flotilla.core.limits import Limits
from flotilla.core.session import Session

HERE = Call()
AT_ONCE = 500
LIMITS = Limits(activations_max=1_000_000)
IDLE_TARGET_B, SLEEPING_TARGET_B = 4096, 200
RAY_ACTORS = 4
AWAKE = 10_000


def main() -> None:
    options = arguments("density", __doc__ or "").parse_args()
    idle, *others = uvloop.run(_measure(options.quick))
    peer = ray_actor_bytes()
    idle = msgspec.structs.replace(idle, peer="ray_actor", peer_value=peer)
    ratio = Result(
        measure="ray_actors_in_an_activation",
        value=peer / idle.value,
        unit="x",
        target=10_000,
        better="higher",
    )
    report("density", [idle, ratio, *others], options.json)


async def _measure(quick: bool) -> list[Result]:
    sizes = (500, 2_000, 10_000) if quick else (1_000, 10_000, 100_000)
    async with database() as own:
        cluster = Cluster(lambda _: [Resident(Session)], journal=own.journal, limits=LIMITS)
        host = await cluster.add("a", housekeeping=False)
        await cluster.settle()
        slope, spread = await idle_bytes(host, sizes)
        reactivated = await reactivate_ms(host, 500 if quick else 3_000)
        sleeping = await sleeping_bytes(own, host, 100_000 if quick else 1_000_000)
        await cluster.aclose()
    calm_collector()  # as the process of a host does
    rates = [await activations_per_s(5_000 if quick else 30_000) for _ in range(3)]
    return [
        Result(
            measure="bytes_per_idle_activation",
            value=slope,
            unit="B",
            target=IDLE_TARGET_B,
            better="lower",
            samples=len(sizes),
            spread=spread,
        ),
        Result(
            measure="bytes_per_sleeping_identity",
            value=sleeping,
            unit="B",
            target=SLEEPING_TARGET_B,
            better="lower",
        ),
        Result(
            measure="activations_per_s",
            value=statistics.median(rates),
            unit="1/s",
            target=20_000,
            better="higher",
            samples=len(rates),
            spread=(max(rates) - min(rates)) / statistics.median(rates),
        ),
        Result(
            measure="reactivate_p99_ms",
            value=percentile(reactivated, 99),
            unit="ms",
            target=5,
            better="lower",
            samples=len(reactivated),
        ),
    ]


# -- awake


async def idle_bytes(host: Host, sizes: Sequence[int]) -> tuple[float, float]:
    """Bytes per activation: the slope between the first and the last size, and how far the slopes between
    neighbours are from each other."""
    memory, count = [], 0
    for size in sizes:
        await _open(host, count, size)
        count = size
        memory.append(private_bytes())
    slopes = [
        (m2 - m1) / (s2 - s1) for m1, m2, s1, s2 in zip(memory, memory[1:], sizes, sizes[1:], strict=False)
    ]
    whole = (memory[-1] - memory[0]) / (sizes[-1] - sizes[0])
    return whole, (max(slopes) - min(slopes)) / whole


async def _open(host: Host, first: int, last: int) -> None:
    for n in range(first, last, AT_ONCE):
        names = range(n, min(n + AT_ONCE, last))
        await asyncio.gather(*(host.ask(session(m), signals.Open(agent="bank"), HERE) for m in names))


def session(n: int) -> ActorId:
    return ActorId("demo", "session", f"s_{n:026d}")


def private_bytes(process: psutil.Process | None = None) -> int:
    gc.collect()
    return (process or psutil.Process()).memory_full_info().uss


async def activations_per_s(count: int) -> float:
    """Actors with a fact each in a memory journal, asked for the first time, a few hundred at once."""
    cluster = Cluster(lambda _: [Resident(Counter)], limits=LIMITS)
    ids = [ActorId("demo", "counter", f"c-{n}") for n in range(count)]
    first = await cluster.add("a", housekeeping=False)
    await asyncio.gather(*(first.ask(id, Add(id="1"), HERE) for id in ids))
    await cluster.kill("a")
    host = await cluster.add("b", housekeeping=False)
    await cluster.settle()
    began = time.perf_counter()
    for n in range(0, count, AT_ONCE):
        promises = [Promise() for _ in range(AT_ONCE)]
        for id, promise in zip(ids[n:], promises, strict=False):
            host.deliver(id, Total(), promise, HERE)
        assert {await promise.future for promise in promises} == {1}
    rate = count / (time.perf_counter() - began)
    await cluster.aclose()
    return rate


async def reactivate_ms(host: Host, samples: int) -> list[float]:
    """From the ask to the answer of a session that was passivated, one after another."""
    taken: list[float] = []
    for n in range(samples):
        host.active[session(n)].lose()
        began = time.perf_counter()
        await host.ask(session(n), signals.Describe(), HERE)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


# -- asleep

# A sleeping session is never read here, so what its body says doesn't matter; its size does.
_SLEEPERS = """
    insert into facts (tenant, actor, seq, type, version, at, key, body)
    select 'asleep', 'session/s_' || lpad(n::text, 26, '0'), f.seq, f.type, f.version, f.at, f.key, f.body
    from generate_series($1::int, $2::int) n, (select * from facts limit 4) f
    where true on conflict do nothing
"""


async def sleeping_bytes(own: Database, host: Host, count: int) -> float:
    """The slope of the cluster's memory (host and PostgreSQL) between a tenth of the identities and all of
    them, with the same ten thousand awake."""
    await _open(host, 0, AWAKE)
    memory: list[int] = []
    for first, last in ((0, count // 10), (count // 10, count)):
        await own.owner.execute(_SLEEPERS, first, last - 1, timeout=600)
        await own.owner.execute("vacuum analyze facts", timeout=600)
        for n in range(0, AWAKE, AT_ONCE):
            await asyncio.gather(
                *(host.ask(session(m), signals.Describe(), HERE) for m in range(n, n + AT_ONCE))
            )
        memory.append(private_bytes() + own.memory())
    return (memory[1] - memory[0]) / (count - count // 10)


# -- the peer


class Plain:
    def ping(self) -> None:
        return None


def ray_actor_bytes() -> float:
    """Private memory of a Ray actor that does nothing (mean of a few)."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        plain: Any = ray.remote(Plain)
        actors = [plain.options(num_cpus=0).remote() for _ in range(RAY_ACTORS)]
        ray.get([actor.ping.remote() for actor in actors])
        mine = [private_bytes(p) for p in psutil.process_iter() if _title(p).startswith("ray::Plain")]
        assert len(mine) == RAY_ACTORS
        return statistics.mean(mine)
    finally:
        ray.shutdown()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


if __name__ == "__main__":
    main()
