"""A call over a link and a call of a Ray actor, between the same two processes: `python -m benchmarks.links`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import numpy as np
import ray

from actors.link import Link, Listener, Reply, connect
from benchmarks.report import Result, arguments, report
from flotilla.core.errors import NotFound

BODY = bytes(200)
TOKEN = "benchmark"


async def no_streams(method: str, body: bytes) -> AsyncGenerator[bytes]:
    raise NotFound(f"No stream {method!r}.")
    yield


class Echo:
    async def call(self, body: bytes) -> bytes:
        return body

    async def listen(self) -> str:
        self._listener = Listener(no_streams, TOKEN, asked=self._asked)
        return await self._listener.start()

    def _asked(self, method: str, body: bytes, reply: Reply | None) -> None:
        assert reply is not None
        reply.answer(body)


async def times(call: Callable[[], Awaitable[Any]], calls: int) -> list[float]:
    """Milliseconds of each call, one after another."""
    found: list[float] = []
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        found.append((time.perf_counter() - began) * 1000)
    return found


async def measure(calls: int, rounds: int) -> list[Result]:
    echo: Any = ray.remote(Echo).options(num_cpus=0).remote()
    link: Link = await connect(await echo.listen.remote(), TOKEN)
    ways: dict[str, Callable[[], Awaitable[Any]]] = {
        "link": lambda: link.ask("echo", BODY),
        "ray": lambda: echo.call.remote(BODY),
    }
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, call in ways.items():
            taken = await times(call, calls)
            if number:  # the first round warms up
                found[name].append(taken)
    await link.aclose()
    return [_result(found, q, calls * rounds) for q in (50, 95)]


def _result(found: dict[str, list[list[float]]], q: int, samples: int) -> Result:
    rounds = {name: [float(np.percentile(taken, q)) for taken in lists] for name, lists in found.items()}
    middle = {name: float(np.median(values)) for name, values in rounds.items()}
    return Result(
        measure=f"link_call_p{q}_ms",
        value=round(middle["link"], 4),
        unit="ms",
        better="lower",
        peer="ray_actor_call",
        peer_value=round(middle["ray"], 4),
        samples=samples,
        spread=round((max(rounds["link"]) - min(rounds["link"])) / middle["link"], 3),
    )


def main() -> None:
    options = arguments("links", "A call over a link against a Ray actor call.").parse_args()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    results = asyncio.run(measure(calls=200 if options.quick else 1000, rounds=3))
    ray.shutdown()
    report("links", results, options.json)


if __name__ == "__main__":
    main()
