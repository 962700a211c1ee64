"""Engines on a shelf, by version: opened when one is asked for, closed when nobody has for the longest time.

A new version is loaded beside the old one, so that both are answered until everybody asks for the new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from flotilla.core.errors import Conflict, OtherVersion
from flotilla.core.versions import Version

HELD_MAX = 3  # of each kind in a replica: the old one, the new one, and one to go back to


class Held(Protocol):
    async def ping(self) -> None: ...

    async def close(self) -> None: ...


H = TypeVar("H", bound=Held)


class Shelf(Generic[H]):
    """What has been opened, by the id of its version; the least recently used goes when there are more than
    `HELD_MAX`."""

    def __init__(self, open: Callable[[Version], Awaitable[H]]) -> None:
        self._open = open
        self._versions: dict[str, Version] = {}
        self._held: dict[str, asyncio.Task[H]] = {}

    def __repr__(self) -> str:
        return f"<Shelf {', '.join(self._held)}>"

    @property
    def waiting(self) -> int:
        """How much waits to be run; what is remote says nothing."""
        done = (task.result() for task in self._held.values() if task.done() and not task.exception())
        return sum(getattr(held, "waiting", 0) for held in done)

    @property
    def names(self) -> list[str]:
        return list(self._held)

    async def open(self, version: Version) -> H:
        """Opens it once, however many ask, and also when they stop waiting. Raises what opening raises, and
        `Conflict` for another version of the same id."""
        if self._versions.setdefault(version.id, version) != version:
            raise Conflict(
                f"{version.id} is loaded with other settings.",
                field="version",
                next="A version never changes: give it another name.",
            )
        if version.id not in self._held:
            self._held[version.id] = asyncio.create_task(self._opened(version), name=f"open {version.id}")
        task = self._held[version.id]
        try:
            opened = await asyncio.shield(task)
        except Exception:
            if self._held.get(version.id) is task:
                del self._held[version.id], self._versions[version.id]
            raise
        await self._make_room(version.id)
        return opened

    async def _opened(self, version: Version) -> H:
        return await self._open(version)

    async def get(self, version: str) -> H:
        """Raises `OtherVersion` if it isn't here."""
        if version not in self._held:
            raise OtherVersion(
                f"{version} isn't loaded here.", next="Ask to open it first.", retry_after_s=0.0
            )
        self._held[version] = task = self._held.pop(version)  # the last is the most recently used
        return await asyncio.shield(task)

    async def _make_room(self, but: str) -> None:
        idle = [name for name, task in self._held.items() if task.done() and name != but]
        for name in idle[: max(0, len(self._held) - HELD_MAX)]:
            await self._drop(name)

    async def _drop(self, version: str) -> None:
        self._versions.pop(version, None)
        if task := self._held.pop(version, None):
            await (await asyncio.shield(task)).close()

    async def ping(self) -> None:
        for task in list(self._held.values()):
            if task.done():
                await task.result().ping()

    async def close(self) -> None:
        for version, task in list(self._held.items()):
            task.cancel() if not task.done() else await self._drop(version)
