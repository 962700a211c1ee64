"""The librarian's embedders: which one the collections are to have, and the way there.

    reembed(version) ─ open it ─ remember the order ─ … in the background … ─ collections switch ─ close the old

The order outlives the process, and how far each collection is stands in its table: a librarian that comes back
goes on where the last one was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from actors.doors import RemoteKnowledge, answer_knowledge
from actors.frames import encode
from actors.link import Handler
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError, Unavailable
from flotilla.core.knowledge import Reembedding
from flotilla.core.members import Member, MemberState
from flotilla.core.ports import Embedder, Knowledge, Vectors
from flotilla.core.versions import Version, check_version

AGAIN_AFTER_S = 5.0
EMBED_TIMEOUT_S = 60.0
REEMBED_TIMEOUT_S = 180.0  # an engine has to be loaded before the order is taken

Opener = Callable[[Version], Awaitable[Embedder]]


class Collections(Knowledge, Protocol):
    """Knowledge whose embedder can be changed."""

    @property
    def unranked(self) -> int: ...

    async def reembed(self, embedder: Embedder) -> None: ...

    def reembedding(self) -> tuple[Reembedding, ...]: ...

    def forget(self, embedder: str) -> None: ...


class Orders(Protocol):
    async def want(self, version: Version) -> None: ...

    async def wanted(self) -> Version | None: ...

    async def find(self, id: str) -> Version | None: ...


class Embedders:
    """The embedders of one process, opened when they are needed. `default` is wanted until there is an
    order."""

    def __init__(self, orders: Orders, opener: Opener, default: Version) -> None:
        self._orders = orders
        self._opener = opener
        self._default = default
        self._open: dict[str, Embedder] = {}
        self._opening = asyncio.Lock()
        self.last: Embedder | None = None
        """The one that was asked for last: what new vectors are made with."""

    def __repr__(self) -> str:
        return f"<Embedders {', '.join(self._open)}>"

    async def wanted(self) -> Version:
        return await self._orders.wanted() or self._default

    async def want(self, version: Version) -> None:
        """Raises what opening it raises; the order stands only if it can be opened."""
        check_version(version)
        await self.open(version)
        await self._orders.want(version)

    async def first(self, log: Any) -> Embedder:
        """The one that is wanted or, while that can't be opened, the default: searches go on."""
        try:
            return await self.open(await self.wanted())
        except FlotillaError as problem:
            log.error("embedder.missing", reason=str(problem), instead=self._default.id)
            return await self.open(self._default)

    async def find(self, name: str) -> Embedder:
        """Raises `Unavailable` if nothing is known of it."""
        version = self._default if name == self._default.id else await self._orders.find(name)
        if version is None:
            raise Unavailable(f"Nothing is known of the embedder {name!r}.", retry_after_s=30.0)
        return await self.open(version)

    async def open(self, version: Version) -> Embedder:
        async with self._opening:
            if version.id not in self._open:
                self._open[version.id] = await self._opener(version)
            self.last = self._open[version.id]
        return self.last

    async def close_but(self, name: str = "") -> list[str]:
        """Returns the names of those that it closed."""
        async with self._opening:
            names = [other for other in self._open if other != name]
            for other in names:
                await self._open.pop(other).close()
        return names

    async def close(self) -> None:
        await self.close_but()


class Reembedder:
    """Keeps the collections at the embedder that is wanted, as long as its process lives."""

    def __init__(self, knowledge: Collections, embedders: Embedders, clock: Clock, log: Any) -> None:
        self._knowledge = knowledge
        self._embedders = embedders
        self._clock = clock
        self._log = log
        self._ordered = asyncio.Event()

    async def reembed(self, version: Version) -> None:
        """Takes the order; whatever was under way for another embedder stops. Nothing has changed if it
        raises: `Misconfigured` or `Refused` for an embedder that can't be opened, `Conflict` for an id that
        stands for another one."""
        await self._embedders.want(version)
        self._ordered.set()

    async def run(self, _: Member) -> None:
        while True:
            self._ordered.clear()
            work = asyncio.create_task(self._until_done(), name="reembedding")
            try:
                await self._ordered.wait()
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def _until_done(self) -> None:
        while True:
            try:
                return await self._bring_about()
            except FlotillaError as problem:
                self._log.warning("reembedding.failed", reason=str(problem))
                await self._clock.sleep(AGAIN_AFTER_S)

    async def _bring_about(self) -> None:
        embedder = await self._embedders.open(await self._embedders.wanted())
        await self._knowledge.reembed(embedder)
        # Searches that still embed with an old one start over with the new one.
        for old in await self._embedders.close_but(embedder.name):
            self._knowledge.forget(old)
        self._log.info("reembedding.done", embedder=embedder.name)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """With the embedder that is wanted."""
        embedder = await self._embedders.open(await self._embedders.wanted())
        return await embedder.embed(texts)

    def info(self) -> dict[str, str]:
        """For its member of the directory: whose vectors `embed` gives."""
        last = self._embedders.last
        return {"embedder": last.name, "dimensions": str(last.dimensions)} if last else {}

    def report(self) -> tuple[MemberState, dict[str, float]]:
        progress = self._knowledge.reembedding()
        return "up", {
            "documents_reembedded": float(sum(one.done for one in progress)),
            "documents": float(sum(one.total for one in progress)),
            "collections_left": float(sum(not one.switched for one in progress)),
            "unranked": float(self._knowledge.unranked),
        }


def answer_librarian(knowledge: Collections, reembedder: Reembedder) -> Handler:
    """What `answer_knowledge` answers, and "reembed" (a `Version`) and "reembedding" (how far it is)."""
    others = answer_knowledge(knowledge)

    async def answer(method: str, body: bytes) -> AsyncGenerator[bytes]:
        match method:
            case "reembed":
                await reembedder.reembed(msgspec.msgpack.decode(body, type=Version))
                yield b""
            case "embed":
                vectors = await reembedder.embed(msgspec.msgpack.decode(body, type=list[str]))
                yield encode(Embedded(int(vectors.shape[1]), vectors.astype("<f4").tobytes()))
            case "reembedding":
                yield encode(knowledge.reembedding())
            case _:
                async for item in others(method, body):
                    yield item

    return answer


class Embedded(msgspec.Struct, frozen=True, array_like=True):
    """`vectors`: float32, little-endian, a row after the other."""

    dimensions: int
    vectors: bytes


class LibrarianEmbedder(RemoteKnowledge):
    """Implements `Embedder` with the one that the collections have."""

    @property
    def name(self) -> str:
        """As the librarian says with each beat; "" while there is none."""
        return self._said("embedder") or ""

    @property
    def dimensions(self) -> int:
        return int(self._said("dimensions") or 0)

    def _said(self, key: str) -> str | None:
        members = self._roster.members(self.role)
        return members[0].info.get(key) if members else None

    async def embed(self, texts: Sequence[str]) -> Vectors:
        answer = await self._ask("embed", encode(list(texts)), EMBED_TIMEOUT_S)
        said = msgspec.msgpack.decode(answer, type=Embedded)
        return np.frombuffer(said.vectors, "<f4").reshape(len(texts), said.dimensions)


class RemoteLibrarian(RemoteKnowledge):
    """Knowledge whose embedder can be changed, as an operator asks for it."""

    async def reembed(self, version: Version) -> None:
        """Returns once the order is taken. Raises as `Reembedder.reembed`."""
        await self._ask("reembed", encode(version), REEMBED_TIMEOUT_S)

    async def reembedding(self) -> tuple[Reembedding, ...]:
        answer = await self._ask("reembedding", b"")
        return msgspec.msgpack.decode(answer, type=tuple[Reembedding, ...])
