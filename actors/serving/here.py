"""Versions that need no replica: their engines answer in the process that asks, when all else is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

import msgspec

from actors.serving.replies import Begun
from flotilla.core.clock import Clock
from flotilla.core.generation import Generated, Prompt
from flotilla.core.members import Member
from flotilla.core.ports import Model
from flotilla.core.versions import EngineName, Version

NOBODY: Mapping[EngineName, Model] = {}


class HereReading:
    """Implements `Reading`."""

    member: Member | None = None

    def __init__(self, parts: AsyncGenerator[Generated], first: Generated) -> None:
        self._parts = parts
        self.first: asyncio.Future[Generated] = asyncio.get_running_loop().create_future()
        self.first.set_result(first)

    async def rest(self) -> AsyncGenerator[Generated]:
        async for part in self._parts:
            yield part

    async def aclose(self) -> None:
        await self._parts.aclose()


class Here:
    """`engines` by the name that versions call them by."""

    def __init__(self, engines: Mapping[EngineName, Model], clock: Clock) -> None:
        self._engines = engines
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Here: {', '.join(self._engines) or 'nothing'}>"

    def has(self, version: Version) -> bool:
        return version.engine in self._engines

    async def begin(self, version: Version, prompt: Prompt) -> Begun:
        """Raises what the engine raises."""
        asked_at = self._clock.monotonic()
        parts = self._engines[version.engine].generate(msgspec.structs.replace(prompt, model=version.id))
        first = await anext(parts)
        return Begun(version, HereReading(parts, first), asked_at, self._clock.monotonic())
