"""What it costs to be so many customers: the lean client, the client library and locust at the same work.

    python -m benchmarks.load.generators [--quick] [--json FILE]

Each opens WebSockets to a server that only plays the wire (`benchmarks.load.echo`) and has the same turns over them, in
rounds that take turns. Processor time is of a whole turn of twelve frames read and one sent; memory is the slope
between two sizes. docs/decisions/0027 has the figures.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import psutil

from benchmarks.load.orders import Connect, Open, Play, Recruit, Tick
from benchmarks.load.resources import pss_bytes
from benchmarks.load.scenario import Client, Every, Ramp, Scenario, Steady, Ways, with_client
from benchmarks.load.workers import Worker, Workers
from benchmarks.report import Result, arguments, report

ROOT = Path(__file__).parents[2]
TOKENS, TOKEN_S = 10, 0.05
SETTLE_S = 3.0


class Cost(msgspec.Struct, frozen=True):
    """`turn_us` of processor time; the PSS with all sockets open."""

    turn_us: float
    bytes: int


Generator = Callable[[str, Scenario, float], Awaitable[Cost]]


def scenario(sockets: int, per_s: float, seconds: float) -> Scenario:
    return Scenario(
        about="",
        conversations=sockets,
        ways=Ways(websocket=1),
        traffic=Every(seconds=sockets / per_s),
        phases=(Ramp(), Steady(seconds=seconds)),
    )


async def lean(url: str, played: Scenario, seconds: float) -> Cost:
    return await _worker(url, played, seconds, "lean")


async def library(url: str, played: Scenario, seconds: float) -> Cost:
    return await _worker(url, played, seconds, "library")


async def _worker(url: str, played: Scenario, seconds: float, client: Client) -> Cost:
    run = f"g{time.monotonic_ns():x}"
    scenario = with_client(played, client)
    recruit = Recruit(scenario=scenario, url=url, rpc="", key="dev", seed=1, run=run, worker=0, workers=1)
    workers = Workers([await Worker.start(recruit, _unheard)])
    try:
        await workers.all(Open())
        await workers.all(Connect(per_s=500))
        process = psutil.Process(workers.pids[0])
        at = time.monotonic() + 1.0
        playing = workers.play(Play(part="g", phase=1, at=at, seconds=seconds + 2 * SETTLE_S, load=1.0))
        cost, _ = await asyncio.gather(_measured(process, recruit.scenario, seconds), playing)
        return cost
    finally:
        await workers.end()


def _unheard(_number: int, _tick: Tick) -> None: ...


async def _measured(process: psutil.Process, played: Scenario, seconds: float) -> Cost:
    """Once the turns have begun to come and go evenly."""
    await asyncio.sleep(1.0 + SETTLE_S)
    before, began = _cpu_s(process), time.monotonic()
    await asyncio.sleep(seconds)
    turns = played.turns_per_s * (time.monotonic() - began)
    return Cost(1e6 * (_cpu_s(process) - before) / turns, pss_bytes(process.pid))


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def locust(url: str, played: Scenario, seconds: float) -> Cost:
    """Its users begin to talk when they have connected: measured from when all of them have."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scenario.toml"
        file.write_text(_toml(played))
        users = ("--headless", "-u", str(played.conversations), "-r", "200", "--host", url)
        command = (sys.executable, "-m", "locust", "-f", "benchmarks/load/locust_users.py", *users)
        environ = os.environ | {"FLOTILLA_SCENARIO": str(file)}
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=environ, stdout=DEVNULL, stderr=DEVNULL
        )
        try:
            seen = psutil.Process(process.pid)
            while len(seen.net_connections("tcp")) < played.conversations:
                await asyncio.sleep(0.5)
            return await _measured(seen, played, seconds)
        finally:
            process.kill()
            await process.wait()


def _toml(played: Scenario) -> str:
    """As much of it as the locust users read."""
    assert isinstance(played.traffic, Every)
    every = f'{{ mode = "every", seconds = {played.traffic.seconds} }}'
    ramp = '[[phases]]\nkind = "ramp"'
    return f'about = "-"\nconversations = {played.conversations}\ntraffic = {every}\n{ramp}\n'


GENERATORS: dict[str, Generator] = {"lean": lean, "library": library, "locust": locust}


async def compared(url: str, quick: bool) -> list[Result]:
    rounds, seconds, per_s = (1, 6.0, 50.0) if quick else (3, 8.0, 100.0)
    small, large = (100, 500) if quick else (500, 2000)
    turns: dict[str, list[float]] = {name: [] for name in GENERATORS}
    slopes: dict[str, list[float]] = {name: [] for name in GENERATORS}
    for _ in range(rounds):
        for name, generator in GENERATORS.items():
            costs = [await generator(url, scenario(size, per_s, seconds), seconds) for size in (small, large)]
            turns[name] += [cost.turn_us for cost in costs]
            slopes[name].append((costs[1].bytes - costs[0].bytes) / (large - small))
            print(name, f"{turns[name][-1]:.0f} µs a turn, {slopes[name][-1]:,.0f} B a socket", flush=True)
    return [
        result
        for name in GENERATORS
        for result in (
            _result(f"{name}_turn_us", turns[name], "µs", statistics.median(turns["lean"])),
            _result(f"{name}_bytes_per_socket", slopes[name], "B", statistics.median(slopes["lean"])),
        )
    ]


def _result(measure: str, values: list[float], unit: str, peer: float) -> Result:
    middle = statistics.median(values)
    spread = (max(values) - min(values)) / middle
    return Result(
        measure=measure, value=round(middle, 1), unit=unit, better="lower",
        peer="lean", peer_value=round(peer, 1), samples=len(values), spread=round(spread, 3),
    )  # fmt: skip


def main() -> None:
    options = arguments("load.generators", __doc__ or "").parse_args()
    words = ("--tokens", str(TOKENS), "--token-s", str(TOKEN_S))
    command = (sys.executable, "-m", "benchmarks.load.echo", *words)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as echo:
        assert echo.stdout is not None
        try:
            url = f"http://127.0.0.1:{int(echo.stdout.readline())}"
            results = asyncio.run(compared(url, options.quick))
        finally:
            echo.terminate()
    report("load.generators", results, options.json)


if __name__ == "__main__":
    main()
