"""Replicas and their controller in a simulated fleet, wired as `serve.processes` wires the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from actors.service import Service
from actors.serving.manning import Manning
from actors.serving.replica import Replica
from actors.serving.watching import watch
from flotilla.core.errors import NotFound
from flotilla.core.swap_facts import Show
from flotilla.core.versions import FLEET, Version
from simulation.nodes import TOKEN, Ground, Node
from simulation.versions import ACTOR
from simulation.weights import Reloadable


async def _fetch(source: str, checksum: str) -> str:
    """All is there already: adapters by their names, and no version has weights."""
    return source


class ReplicaNode(Node):
    """Started with `version`; it can be reloaded in place with any of `weights`."""

    def __init__(self, version: Version, weights: Mapping[str, Version], ground: Ground) -> None:
        super().__init__(ground)
        self.version = version
        self.engine = Reloadable(version, weights, self.clock, ground.chance)
        self.replica = Replica(self.engine, version, _fetch, self.clock, ground.log)
        self.up = False

    async def run(self) -> None:
        replica = self.replica
        await replica.warm()
        self.up = True
        service = Service(
            role="model",
            handler=replica.handle,
            directory=self.directory,
            clock=self.clock,
            log=self.ground.log,
            token=TOKEN,
            info=replica.info,
            report=replica.report,
            housekeeping=(lambda _: watch(replica, self.clock),),
            closers=(self.engine.close,),
        )
        await service.run(self.ground.name, "127.0.0.1", lambda _: None)

    @property
    def reloading(self) -> bool:
        """Whether other weights are being loaded just now."""
        return "reloading" in self.replica.report()[1]

    def suffer(self, **settings: Any) -> None:
        """From now on its engine is slow (`slow_ms`), or breaks off (`fail_share`)."""
        engine: Any = self.engine
        engine._settings = msgspec.structs.replace(engine._settings, **settings)


class ControllerNode(Node):
    """Of replicas alone: hosts come and go as the schedule says."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        assert ground.stores.boards is not None and ground.stores.crew is not None
        self._journal = ground.stores.journal.seen_from(ground.process)
        self.manning = Manning(
            directory=self.directory,
            board=ground.board,
            failures=ground.stores.boards.seen_from(ground.process),
            processes=ground.stores.crew.seen_from(ground.process),
            links=self.links,
            clock=self.clock,
            log=ground.log,
            models=self._models,
            wake=lambda _: self.fleet.ask(ACTOR, Show(hang=True)),
        )

    async def _models(self) -> list[str]:
        return [actor.name for actor, _ in await self._journal.actors(FLEET, "model", limit=10)]

    async def run(self) -> None:
        service = Service(
            role="controller",
            handler=self._answer,
            directory=self.directory,
            clock=self.clock,
            log=self.ground.log,
            token=TOKEN,
            housekeeping=(lambda _: self._keep_house(),),
            closers=(self.links.aclose,),
        )
        await service.run(self.ground.name, "127.0.0.1", lambda _: None)

    async def _keep_house(self) -> None:
        await asyncio.gather(self.roster.run(), self.manning.run())

    async def _answer(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        raise NotFound(f"It has no method {method!r}.")
        yield b""
