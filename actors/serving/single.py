"""A lone model behind the door of many: for tests, the simulator, and whoever needs no fleet."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing

import msgspec

from flotilla.core.errors import NotFound
from flotilla.core.generation import Finished, Generated, Origin, Prompt
from flotilla.core.ports import Holder, Model
from flotilla.core.tallies import Tally
from flotilla.core.versions import Version


class OneModel:
    """Implements `ModelDoor`. `scores` is what was thought of its replies."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.scores = Tally()

    def __repr__(self) -> str:
        return f"<OneModel {self.name}>"

    @property
    def name(self) -> str:
        return self._model.name

    def choose(self, origin: Origin, wanted: str = "") -> str:
        """Its name. Raises `NotFound` if another one is wanted."""
        if wanted not in ("", self.name, self.name.partition("@")[0]):
            raise NotFound(f"There is no model {wanted!r}.", field="model", next=f"Ask for {self.name}.")
        return self.name

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        async with aclosing(self._model.generate(prompt)) as parts:
            async for part in parts:
                named = isinstance(part, Finished) and not part.model
                yield msgspec.structs.replace(part, model=self.name) if named else part

    def hold(self, holder: Holder, versions: Collection[str], *, most_s: float | None = None) -> None:
        """It is never taken away."""

    def score(self, version: str, quality: float) -> None:
        self.scores.score(quality)

    def versions(self, tenant: str) -> list[Version]:
        model, _, name = self.name.partition("@")
        return [Version(model=model, name=name or "1", engine="scripted")]

    async def ping(self) -> None:
        await self._model.ping()

    async def close(self) -> None:
        await self._model.close()
