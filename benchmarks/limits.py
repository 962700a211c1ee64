"""What a limit costs a message, and how well two gateways keep one: `python -m benchmarks.limits`."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import structlog

from benchmarks.report import Result, arguments, report
from flotilla.core.api_keys import KeyLimits
from flotilla.core.clock import SystemClock
from flotilla.core.errors import LimitReached
from flotilla.core.policy.gcra import Quota
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey
from flotilla.stores.valkey_quotas import ValkeyQuotas
from serve.limits.rates import RateLimits
from serve.principals import Principal
from serve.settings import GENEROUS, Settings

WHO = Principal(tenant="bench", key="k", limits=KeyLimits(messages_per_s=2_000.0, messages_burst=10_000))


def gate(url: str, limits: KeyLimits, gateways: int) -> tuple[RateLimits, valkey.Client]:
    client = valkey.connect(url)
    settings = Settings(home="unused", limits=limits, gateways=gateways)
    return RateLimits(settings, ValkeyQuotas(client), SystemClock(), structlog.get_logger()), client


async def cost_us(url: str, messages: int) -> float:
    """Processor time of the process for a message under two limits: leases, round trips, and the loop's own. They
    come as fast as the limit lets them, in lots of 20."""
    made, client = gate(url, GENEROUS, 1)
    began, done = time.process_time(), 0
    while done < messages:
        for _ in range(20):
            if not made.message_now(WHO):
                await made.message(WHO)
        done += 20
        await asyncio.sleep(0.012)
    spent = time.process_time() - began
    await client.aclose()
    return spent / done * 1e6


async def round_trip_us(url: str, calls: int) -> float:
    """What it would cost without leases."""
    client = valkey.connect(url)
    quotas, quota = ValkeyQuotas(client), Quota(10**9, 1e-6)
    began = time.process_time()
    for _ in range(calls):
        await quotas.take("bench", quota, 1)
    spent = time.process_time() - began
    await client.aclose()
    return spent / calls * 1e6


async def error_percent(url: str, seconds: float) -> float:
    """By how much two gateways that are asked for three times the limit miss it."""
    limits = KeyLimits(messages_per_s=333.0, messages_burst=333)
    gates = [gate(url, limits, 2) for _ in range(2)]
    who = Principal(tenant=f"error-{time.monotonic_ns()}", key="k")
    began, through = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        for made, _ in gates:
            for _ in range(5):
                try:
                    await made.message(who)
                except LimitReached:
                    break
                through += 1
        await asyncio.sleep(0.01)
    allowed = 333 + 333 * (time.monotonic() - began)
    for _, client in gates:
        await client.aclose()
    return abs(through - allowed) / allowed * 100


async def measure(url: str, *, quick: bool) -> list[Result]:
    rounds = 3
    costs = [await cost_us(url, 2_000 if quick else 10_000) for _ in range(rounds)]
    trips = [await round_trip_us(url, 500 if quick else 3_000) for _ in range(rounds)]
    errors = [await error_percent(url, 3.0 if quick else 10.0) for _ in range(rounds)]
    return [
        Result(
            measure="limit, a message under two limits (CPU)",
            value=statistics.median(costs),
            unit="µs",
            better="lower",
            target=20.0,
            peer="a round trip for each limit",
            peer_value=2 * statistics.median(trips),
            samples=rounds,
        ),
        Result(
            measure="limit, missed by two gateways",
            value=max(errors),
            unit="%",
            better="lower",
            target=10.0,
            samples=rounds,
        ),
    ]


def main() -> None:
    given = arguments("limits", __doc__ or "").parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fb-", dir="/tmp"))
    server = Valkey(folder, folder)
    server.start()
    try:
        found = asyncio.run(measure(server.url, quick=given.quick))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    report("limits", found, given.json)


if __name__ == "__main__":
    main()
