"""An engine that can be reloaded in place: what it says and how it does come with the version."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import msgspec

from flotilla.core.clock import Clock
from flotilla.core.errors import Misconfigured
from flotilla.core.versions import Version
from models.engines import decode
from models.scripted import ScriptedModel, ScriptSettings

RELOADS_S = (0.0, 0.3, 2.0)


class Reloadable(ScriptedModel):
    """`weights` are the versions whose weights can be had, by id: their settings stand for those."""

    def __init__(
        self, version: Version, weights: Mapping[str, Version], clock: Clock, chance: Random
    ) -> None:
        super().__init__(_settings(version), clock)
        self._weights_of = weights
        self._chance = chance

    async def reload(self, folder: str, name: str) -> None:
        """Takes its time. Raises `Misconfigured` for weights that can't be had."""
        await self._clock.sleep(self._chance.choice(RELOADS_S) * self._chance.random())
        if (version := self._weights_of.get(name)) is None:
            raise Misconfigured(f"The weights of {name} are missing.", field="source")
        self._settings = _settings(version)


def _settings(version: Version) -> ScriptSettings:
    return msgspec.structs.replace(decode(version.settings, ScriptSettings), name=version.id)
