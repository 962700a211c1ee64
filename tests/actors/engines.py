"""An engine in the hands of a test: it makes the words that it is told to, when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from flotilla.core.errors import AdapterMissing, Misconfigured, Unavailable
from flotilla.core.generation import EngineLoad, Finished, Generated, Piece, Prompt, Usage


class Puppet:
    """Implements `Engine`. Each reply is the name of the weights, in `words` pieces; between the first and the
    second it waits until `go` is set. Weights in `bad` don't load, those in `mute` load and make nothing."""

    def __init__(self, name: str = "m@1", words: int = 2) -> None:
        self.name = name
        self.words = words
        self.running = 0
        self.go = asyncio.Event()
        self.go.set()
        self.reload_may = asyncio.Event()
        self.reload_may.set()
        self.silent = False
        self.bad: set[str] = set()
        self.mute: set[str] = set()
        self.adapters: dict[str, str] = {}
        self.reloads: list[tuple[str, str]] = []
        self.prompts: list[Prompt] = []

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        self.prompts.append(prompt)
        await self._check(prompt)
        self.running += 1
        try:
            for word in range(self.words):
                if word == 1:
                    await self.go.wait()
                yield Piece(text=self.name)
            yield Finished(reason="stop", usage=Usage(), first_token_ms=1.0, total_ms=2.0)
        finally:
            self.running -= 1

    async def _check(self, prompt: Prompt) -> None:
        if self.silent:
            await asyncio.get_running_loop().create_future()
        if self.name in self.mute:
            raise Unavailable(f"{self.name} makes nothing.")
        if prompt.adapter and prompt.adapter not in self.adapters:
            raise AdapterMissing(prompt.adapter)

    async def ping(self) -> None:
        await self._check(Prompt())

    async def close(self) -> None:
        return None

    def load(self) -> EngineLoad:
        return EngineLoad(
            running=self.running, queued_tokens=7, cache_used=0.5, adapters=tuple(self.adapters)
        )

    async def load_adapter(self, id: str, folder: str) -> None:
        if folder in self.bad:
            raise Misconfigured("It does not fit.", field="adapter")
        self.adapters[id] = folder

    async def unload_adapter(self, id: str) -> None:
        self.adapters.pop(id, None)

    async def reload(self, folder: str, name: str) -> None:
        assert not self.running, "somebody is generating"
        await self.reload_may.wait()
        self.reloads.append((folder, name))
        if folder in self.bad:
            raise Misconfigured(f"{folder} has other shapes.", field="source")
        self.name = name
