"""Two engines on the same cores: `python -m benchmarks.crowding`.

SmolLM2-135M twice, each with as many threads as there are cores, as during a swap beside on a machine without a GPU.
Four customers ask one of them, then two ask each: as libgomp would have it, its threads spinning while they wait for
each other, and with the restraint of docs/decisions/0029. Two halves of a batch cost more than the whole: two engines
that share perfectly make fewer tokens than one, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.real_swap import QUESTIONS
from benchmarks.report import Result, arguments, report
from benchmarks.solo import Reply, Solo

CUSTOMERS = 4
SETTLE_S = 2.0  # an engine notices its neighbour


async def measure(cache: Path, seconds: float) -> list[Result]:
    results: list[Result] = []
    for name, seated in (("spinning", False), ("restrained", True)):
        first = await Solo.start(cache, ours=True, seated=seated)
        one = await asked([first], seconds)
        second = await Solo.start(cache, ours=True, seated=seated)
        await asyncio.sleep(SETTLE_S)
        two = await asked([first, second], seconds)
        await asyncio.gather(first.stop(), second.stop())
        results += _results(name, one, two)
    return results


class Asked(msgspec.Struct, frozen=True):
    replies: list[Reply]
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return sum(reply.tokens for reply in self.replies) / self.seconds


async def asked(engines: Sequence[Solo], seconds: float) -> Asked:
    """The customers share the engines and ask one thing after the other."""
    began, replies = time.monotonic(), list[Reply]()

    async def customer(n: int) -> None:
        while time.monotonic() < began + seconds:
            replies.append(await engines[n % len(engines)].generate(QUESTIONS[len(replies) % len(QUESTIONS)]))

    await asyncio.gather(*map(customer, range(CUSTOMERS)))
    return Asked(replies, time.monotonic() - began)


def _results(name: str, one: Asked, two: Asked) -> list[Result]:
    ratio = two.tokens_per_s / one.tokens_per_s
    return [
        _result(f"tokens_per_s_one_{name}", one.tokens_per_s, "1/s", len(one.replies)),
        _result(f"tokens_per_s_two_{name}", two.tokens_per_s, "1/s", len(two.replies)),
        _result(f"two_over_one_{name}", ratio, "", 1),
        *(_first(f"{what}_{name}", asked.replies) for what, asked in (("one", one), ("two", two))),
    ]


def _result(name: str, value: float, unit: str, samples: int) -> Result:
    return Result(measure=name, value=round(value, 3), unit=unit, better="higher", samples=samples)


def _first(name: str, replies: Sequence[Reply]) -> Result:
    value = float(np.percentile([1000 * reply.first_s for reply in replies], 95))
    return Result(
        measure=f"ttft_p95_ms_{name}", value=round(value, 1), unit="ms", better="lower", samples=len(replies)
    )


def main() -> None:
    options = arguments("crowding", __doc__ or "").parse_args()
    cache = Path(".flotilla/cache")
    report("crowding", asyncio.run(measure(cache, 6.0 if options.quick else 20.0)), options.json)


if __name__ == "__main__":
    main()
