"""The scheduler of a world's replicas, as Ray is the real ones': starts them late, and again when they die."""

from __future__ import annotations

import random
from collections.abc import Callable

from flotilla.core.versions import Placed, version_of
from simulation.loop import SimLoop
from simulation.process import Process
from simulation.versions import BAD

START_S = (0.1, 0.4, 2.0)
NO_WEIGHTS = "The weights are missing."


class Crew:
    """Implements `Replicas` of the manning, behind a `Store`. `up` starts a process, `down` kills it."""

    def __init__(
        self,
        loop: SimLoop,
        process: Process,
        chance: random.Random,
        up: Callable[[str], None],
        down: Callable[[str], None],
    ) -> None:
        self.placed: dict[str, Placed] = {}
        self.without_weights = chance.random() < 0.15
        self._loop = loop
        self._process = process
        self._chance = chance
        self._up = up
        self._down = down

    async def names(self) -> list[str]:
        return sorted(self.placed)

    async def start(self, name: str, placed: Placed) -> None:
        if name not in self.placed:
            self.placed[name] = placed
            self.again(name)

    async def stop(self, name: str) -> None:
        if self.placed.pop(name, None):
            self._down(name)

    async def failure(self, name: str) -> str | None:
        return NO_WEIGHTS if self._fails(name) else None

    def _fails(self, name: str) -> bool:
        return self.without_weights and version_of(name) == BAD

    def again(self, name: str) -> None:
        """It comes up in a while, unless it is stopped meanwhile."""
        if not self._fails(name):
            when = self._loop.time() + self._chance.choice(START_S) * self._chance.random()
            self._loop.call_at(when, self._start, name, context=self._process.context)

    def _start(self, name: str) -> None:
        if name in self.placed:
            self._up(name)
