"""Messages a second between two processes, over a link and as plain calls of a Ray actor:
`python -m benchmarks.messages`. Both processes are Ray actors, on the cores of one machine.

A message and its answer count as one message. Over the link 256 callers ask, each again as soon as it is
answered; Ray's calls are submitted a thousand at a time to an actor that does not use asyncio, which is the
fastest of its ways here (async actors take 0.5 to 0.7 as many). Nothing is written to a disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray

from actors.link import Link, Listener, Reply, connect
from benchmarks import hosted
from benchmarks.links import no_streams
from benchmarks.report import Result, arguments, report

BODY = bytes(200)
TOKEN = "benchmark"
CALLERS = 256
CALLED_AT_ONCE = 1000
TOLD_AT_ONCE = 64

Rates = dict[str, list[float]]
"""Messages a second of each way, one figure a round."""


class Callee:
    """The process that is asked."""

    def __init__(self) -> None:
        self._told = 0

    async def listen(self) -> str:
        self._listener = Listener(no_streams, TOKEN, asked=self._asked)
        return await self._listener.start()

    def _asked(self, method: str, body: bytes, reply: Reply | None) -> None:
        if reply is None:
            self._told += 1
        else:
            reply.answer(self._told.to_bytes(8, "big") if method == "told" else body)


class PlainCallee:
    """The process that Ray calls."""

    def call(self, body: bytes) -> bytes:
        return body


class PlainCaller:
    """The process that calls it."""

    def __init__(self, callee: Any) -> None:
        self._callee = callee

    def call(self, messages: int) -> float:
        """Messages a second."""
        began = time.perf_counter()
        for _ in range(messages // CALLED_AT_ONCE):
            _check(ray.get([self._callee.call.remote(BODY) for _ in range(CALLED_AT_ONCE)]))
        return messages / (time.perf_counter() - began)


class Caller:
    """The process that asks, and holds the watch."""

    async def connect(self, callee: Any) -> None:
        self._callee = callee  # which lives for as long as somebody can call it
        self._link: Link = await connect(await callee.listen.remote(), TOKEN)

    async def ask(self, messages: int) -> float:
        """Messages a second: `CALLERS` at once, each again as soon as it is answered."""

        async def one(times: int) -> None:
            for _ in range(times):
                _check([await self._link.ask("echo", BODY)])

        began = time.perf_counter()
        await asyncio.gather(*(one(messages // CALLERS) for _ in range(CALLERS)))
        return messages / (time.perf_counter() - began)

    async def tell(self, messages: int) -> float:
        """Until the last has been handled; raises if one got lost."""
        before = await self._told()
        began = time.perf_counter()
        for sent in range(messages):
            self._link.tell("note", BODY)
            if sent % TOLD_AT_ONCE == 0:
                await self._link.writable()
        told = await self._told() - before
        taken = time.perf_counter() - began
        if told != messages:
            raise AssertionError(f"{told} of {messages} arrived.")
        return messages / taken

    async def _told(self) -> int:
        return int.from_bytes(await self._link.ask("told", b""), "big")


def _check(answers: Sequence[bytes]) -> None:
    if any(len(answer) != len(BODY) for answer in answers):
        raise AssertionError("Another answer.")


def between_processes(quick: bool) -> list[Result]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        return _link_results(_measure_links(1 if quick else 4))
    finally:
        ray.shutdown()


def _measure_links(size: int, rounds: int = 5) -> Rates:
    """`size` scales the messages of a round."""
    actors = _started()
    messages = {
        "ask": 51_200 * size,
        "call": 5_000 * size,
        "tell": 102_400 * size,
        "actor_ask": 25_600 * size,
        "actor_tell": 25_600 * size,
    }
    rates: Rates = {way: [] for way in messages}
    for number in range(rounds + 1):
        for way, count in messages.items():
            actor, method = actors[way]
            rate: float = ray.get(getattr(actor, method).remote(count))
            if number:  # the first round warms up
                rates[way].append(rate)
    return rates


def _started() -> dict[str, tuple[Any, str]]:
    """The actor that measures each way, and the method that does."""
    callee: Any = ray.remote(Callee).options(num_cpus=0).remote()
    caller: Any = ray.remote(Caller).options(num_cpus=0).remote()
    ray.get(caller.connect.remote(callee))
    plain: Any = ray.remote(PlainCallee).options(num_cpus=0).remote()
    hosting: Any = ray.remote(hosted.Hosting).options(num_cpus=0).remote()
    asking: Any = ray.remote(hosted.Asking).options(num_cpus=0).remote()
    ray.get(asking.connect.remote(hosting))
    calling: Any = ray.remote(PlainCaller).options(num_cpus=0).remote(plain)
    return {
        "ask": (caller, "ask"),
        "tell": (caller, "tell"),
        "call": (calling, "call"),
        "actor_ask": (asking, "ask"),
        "actor_tell": (asking, "tell"),
    }


def _link_results(rates: Rates) -> list[Result]:
    plain = float(np.median(rates["call"]))
    times = [ask / call for ask, call in zip(rates["actor_ask"], rates["call"], strict=True)]
    return [
        _result("actor_asks_between_hosts_per_s", "1/s", rates["actor_ask"], 40_000, plain),
        _result("actor_tells_between_hosts_per_s", "1/s", rates["actor_tell"], None, plain),
        _result("link_messages_per_s", "1/s", rates["ask"], 40_000, plain),
        _result("link_tells_per_s", "1/s", rates["tell"], None, plain),
        _result("actor_asks_over_plain", "times", times, 20),
    ]


def _result(
    measure: str, unit: str, values: Sequence[float], target: float | None, plain: float | None = None
) -> Result:
    middle = float(np.median(values))
    return Result(
        measure=measure,
        value=round(middle, 1),
        unit=unit,
        better="higher",
        target=target,
        peer=None if plain is None else "ray_actor_call",
        peer_value=None if plain is None else round(plain, 1),
        samples=len(values),
        spread=round((max(values) - min(values)) / middle, 3),
    )


def inside_a_host(quick: bool) -> list[Result]:
    return [_result("host_messages_per_s", "1/s", hosted.inside(100 if quick else 1_000), 100_000)]


QUESTIONS: tuple[Callable[[bool], list[Result]], ...] = (inside_a_host, between_processes)
"""Each takes `quick`, starts what it needs, measures and stops it."""


def main() -> None:
    options = arguments("messages", "Messages a second, against Ray actor calls.").parse_args()
    results = [result for question in QUESTIONS for result in question(options.quick)]
    report("messages", results, options.json)


if __name__ == "__main__":
    main()
