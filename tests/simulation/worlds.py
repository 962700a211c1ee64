"""Small worlds for the tests of the simulator itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from simulation.loop import SimLoop
from simulation.network import Network
from simulation.weather import Weather

Main = Callable[[SimLoop, Network], Awaitable[Any]]
CALM = Weather(late=0.0, split=0.0)


def run(main: Main, seed: int = 1, weather: Weather = CALM) -> Any:
    """What `main` returns, on a loop of its own."""
    loop = SimLoop(seed)
    network = loop.sockets = Network(loop, weather)
    return loop.run(_awaited(main(loop, network)))


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value
