"""An engine that can be reloaded in place and given adapters: what it says and how it does come with those."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from random import Random

import msgspec

from flotilla.core.clock import Clock
from flotilla.core.errors import Misconfigured
from flotilla.core.generation import EngineLoad, Generated, Piece, Prompt
from flotilla.core.versions import Version
from models.adapters import Shelf
from models.engines import decode
from models.scripted import ScriptedModel, ScriptSettings
from simulation.versions import ALPHABETS

RELOADS_S = (0.0, 0.3, 2.0)
LOADS_ADAPTER_S = (0.0, 0.1, 1.0)


class Reloadable(ScriptedModel):
    """`weights` are the versions whose weights can be had, by id: their settings stand for those."""

    def __init__(
        self, version: Version, weights: Mapping[str, Version], clock: Clock, chance: Random
    ) -> None:
        super().__init__(_settings(version), clock)
        self._weights_of = weights
        self._chance = chance
        self._shelf = Shelf(self._settings.adapters_max)

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        with self._shelf.using(prompt.adapter) as adapter:
            letters = ALPHABETS[adapter.folder] if adapter else {}
            async with aclosing(super().generate(msgspec.structs.replace(prompt, adapter=""))) as parts:
                async for part in parts:
                    yield _written(part, letters)

    def load(self) -> EngineLoad:
        return msgspec.structs.replace(super().load(), adapters=self._shelf.ids)

    async def load_adapter(self, id: str, folder: str) -> None:
        """Takes its time. One that is used makes no room, as at the engine that has weights."""
        if id in self._shelf.ids:
            return
        await self._clock.sleep(self._chance.choice(LOADS_ADAPTER_S) * self._chance.random())
        self._shelf.make_room()
        self._shelf.gone()
        self._shelf.put(self._shelf.made(id, folder))

    async def unload_adapter(self, id: str) -> None:
        self._shelf.take(id)
        self._shelf.gone()

    async def reload(self, folder: str, name: str) -> None:
        """Takes its time. Raises `Misconfigured` for weights that can't be had."""
        await self._clock.sleep(self._chance.choice(RELOADS_S) * self._chance.random())
        if (version := self._weights_of.get(name)) is None:
            raise Misconfigured(f"The weights of {name} are missing.", field="source")
        self._settings = _settings(version)


def _written(part: Generated, letters: Mapping[int, str]) -> Generated:
    """In those letters."""
    return (
        msgspec.structs.replace(part, text=part.text.translate(letters)) if isinstance(part, Piece) else part
    )


def _settings(version: Version) -> ScriptSettings:
    return msgspec.structs.replace(decode(version.settings, ScriptSettings), name=version.id)
