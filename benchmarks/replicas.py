"""A replica as an actor of ours and as a deployment of Ray Serve's: `python -m benchmarks.replicas`.

Both run the same scripted engine in a process of Ray's. What is asked: how long until the first reply of a
new one, what a stream costs, how long until the first reply after `kill -9`; and what a frame for each step of
the engine would save (`benchmarks.frames`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import numpy as np
import psutil
import ray
from ray import serve

from actors import cluster
from actors.cluster import Recipe
from actors.link import Link, Links
from actors.service import Service
from actors.serving.replica import Replica
from benchmarks.frames import frames
from benchmarks.report import Result, arguments, report
from flotilla.core.clock import SystemClock
from flotilla.core.generation import ChatMessage, Prompt
from flotilla.core.versions import Version
from flotilla.stores.memory import MemoryDirectory
from models.script import ScriptSettings
from models.scripted import ScriptedModel
from serve.log import logger

TOKEN = "benchmark"
PIECES = 64
VERSION = Version(model="m", name="1", engine="scripted")
PROMPT = msgspec.msgpack.encode(
    Prompt(messages=(ChatMessage(role="user", text="Hello"),), tokens_max=PIECES, model="m@1")
)
AT_ONCE = 16

Ask = Callable[[], Awaitable[int]]
"""One reply; how many items came."""


async def fetch(uri: str, checksum: str) -> str:
    return uri


def replica() -> Replica:
    script = ScriptSettings(
        name="m@1", first_token_s=0.0, token_s=0.0, tokens_median=4 * PIECES, tokens_spread=0.0
    )
    return Replica(ScriptedModel(script), VERSION, fetch, SystemClock(), logger("benchmark"))


async def wired(_: None) -> Service:
    here = replica()
    await here.warm()
    return Service(
        role="model",
        handler=here.handle,
        directory=MemoryDirectory(),
        clock=SystemClock(),
        log=logger("benchmark"),
        token=TOKEN,
        info=here.info,
        report=here.report,
    )


# -- as an actor


class Actors:
    """Asks over a link, as a host does."""

    recipe = Recipe(
        role="model", name="m@1.1", wire="benchmarks.replicas:wired", settings=None, listen="127.0.0.1"
    )

    def __init__(self) -> None:
        self._links = Links(TOKEN)

    def start(self) -> None:
        cluster.start(self.recipe)

    async def ask(self) -> int:
        link = await self._links.to((await asyncio.to_thread(cluster.status, self.recipe)).detail)
        return await _count(link)

    async def asker(self) -> Ask:
        link = await self._links.to(cluster.status(self.recipe).detail)
        return lambda: _count(link)

    async def pid(self) -> int:
        port = int(cluster.status(self.recipe).detail.rpartition(":")[2])
        found = psutil.net_connections("tcp")
        return next(
            c.pid for c in found if c.laddr and c.laddr.port == port and c.pid and c.status == "LISTEN"
        )

    async def stop(self) -> None:
        cluster.stop("model", "m@1.1")
        await self._links.aclose()


async def _count(link: Link) -> int:
    count = 0
    async with aclosing(link.call("generate", PROMPT)) as items:
        async for _ in items:
            count += 1
    return count


# -- as a deployment


class Deployed:
    def __init__(self) -> None:
        self._replica = replica()

    async def generate(self, body: bytes) -> AsyncGenerator[bytes]:
        async for item in self._replica.handle("generate", body):
            yield item

    def pid(self) -> int:
        return os.getpid()


class Deployments:
    """Asks by a handle, as an ingress deployment does."""

    def start(self) -> None:
        options: Any = {"num_cpus": 0}
        deployment = serve.deployment(ray_actor_options=options, max_ongoing_requests=1000)(Deployed)
        self._handle: Any = serve.run(deployment.bind(), name="m", route_prefix=None)

    async def ask(self) -> int:
        count = 0
        async for _ in self._handle.options(stream=True).generate.remote(PROMPT):
            count += 1
        return count

    async def asker(self) -> Ask:
        return self.ask

    async def pid(self) -> int:
        return await self._handle.pid.remote()

    async def stop(self) -> None:
        await asyncio.to_thread(serve.delete, "m")


# -- measuring


async def measure(way: Actors | Deployments, rounds: int) -> dict[str, float]:
    """Seconds and milliseconds, by what was asked."""
    began = time.perf_counter()
    await asyncio.to_thread(way.start)
    found = {"start_s": await _until_it_answers(way, began)}
    ask = await way.asker()
    taken = [await _timed(ask) for _ in range(rounds)][rounds // 10 :]
    found["reply_ms"] = 1000 * float(np.median(taken))
    began = time.perf_counter()
    for _ in range(rounds // AT_ONCE + 1):
        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    found["replies_per_s"] = (rounds // AT_ONCE + 1) * AT_ONCE / (time.perf_counter() - began)
    os.kill(await way.pid(), signal.SIGKILL)
    found["restart_s"] = await _until_it_answers(way, time.perf_counter())
    await way.stop()
    return found


async def _until_it_answers(way: Actors | Deployments, began: float) -> float:
    while True:
        try:
            async with asyncio.timeout(60):
                if await way.ask():
                    return time.perf_counter() - began
        except Exception:  # not there yet, in the words of either library
            await asyncio.sleep(0.02)


async def _timed(ask: Ask) -> float:
    began = time.perf_counter()
    assert await ask() == PIECES + 1, "the reply is not whole"
    return time.perf_counter() - began


def results(ours: dict[str, float], peers: dict[str, float]) -> list[Result]:
    units = {"start_s": "s", "reply_ms": "ms", "replies_per_s": "1/s", "restart_s": "s"}
    return [
        Result(
            measure=f"replica_{name}",
            value=round(ours[name], 3),
            unit=unit,
            better="higher" if name == "replies_per_s" else "lower",
            peer="ray_serve",
            peer_value=round(peers[name], 3),
        )
        for name, unit in units.items()
    ]


def main() -> None:
    options = arguments("replicas", "Replicas as actors against Ray Serve's deployments.").parse_args()
    rounds = 5 if options.quick else 15
    found = [asyncio.run(frames(streams, 100, rounds)) for streams in (1, 16, 64)]
    ray.init(num_cpus=2, namespace=cluster.NAMESPACE, include_dashboard=False, log_to_driver=False)
    serve.start(proxy_location="Disabled")
    asks = 200 if options.quick else 600
    ours, peers = asyncio.run(measure(Actors(), asks)), asyncio.run(measure(Deployments(), asks))
    serve.shutdown()
    ray.shutdown()
    report("replicas", [*results(ours, peers), *found], options.json)


if __name__ == "__main__":
    main()
