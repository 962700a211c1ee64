"""Replicas of embedders behind real links, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from actors.link import Links, Listener
from actors.roster import Roster
from actors.serving.embedding import RemoteEmbedder, answer_embedder
from actors.serving.shelf import Shelf
from flotilla.core.ports import Embedder, Reranker
from flotilla.core.versions import Version
from models.embedders import DEFAULT, open_reranker
from tests.actors.membership import LOG, TOKEN, Board, Hands, listening


class Replicas:
    """A board, and who asks by it."""

    def __init__(self, open: Callable[[Version], Awaitable[Embedder]]) -> None:
        self.board = Board()
        self.links = Links(TOKEN)
        self.roster = Roster(self.board, Hands(), LOG, "embedder")
        self.opened: list[str] = []
        self.listeners: dict[str, Listener] = {}
        self._open = open

    async def start(self, name: str) -> None:
        async def open(version: Version) -> Embedder:
            self.opened.append(f"{name} {version.id}")
            return await self._open(version)

        async def rerank(version: Version) -> Reranker:
            self.opened.append(f"{name} {version.id}")
            return await open_reranker(version, threads=1)

        handler = answer_embedder(Shelf(open), Shelf(rerank))
        self.listeners[name] = await listening(self.board, name, handler, role="embedder", life=f"l-{name}")
        await self.roster.refresh()

    async def kill(self, name: str) -> None:
        """The directory does not know it yet."""
        await self.listeners.pop(name).aclose()

    async def embedder(self, version: Version = DEFAULT) -> RemoteEmbedder:
        return await RemoteEmbedder.open(self.links, self.roster, version)

    async def aclose(self) -> None:
        await self.links.aclose()
        for listener in self.listeners.values():
            await listener.aclose()


@asynccontextmanager
async def replicas(open: Callable[[Version], Awaitable[Embedder]], *names: str) -> AsyncIterator[Replicas]:
    made = Replicas(open)
    for name in names:
        await made.start(name)
    try:
        yield made
    finally:
        await made.aclose()


@asynccontextmanager
async def a_replica(embedder: Embedder) -> AsyncIterator[tuple[RemoteEmbedder, Replicas]]:
    """One that holds `embedder`, whatever the version."""

    async def open(_: Version) -> Embedder:
        return embedder

    async with replicas(open, "embedder-0") as made:
        yield await made.embedder(), made
