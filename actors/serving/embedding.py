"""Embedders and rerankers over links: a replica holds them by version, whoever needs one asks any replica.

    RemoteEmbedder ─ embed(version, texts) ═ link ═ Shelf ─ the version's queue ─ run with others'
                     │ OtherVersion: open(version), and again

A replica opens what it is asked for (`shelf`): one that comes back needs no one to tell it what to load.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import msgspec
import numpy as np

from actors.frames import encode
from actors.link import Handler, Links
from actors.roster import Roster
from actors.serving.shelf import Shelf
from flotilla.core.errors import NotFound, OtherVersion, Unavailable
from flotilla.core.members import Member
from flotilla.core.ports import Embedder, Reranker, Vectors
from flotilla.core.versions import Version

ROLE = "embedder"
TEXTS_MAX = 256  # in one ask
ASK_TIMEOUT_S = 60.0
OPEN_TIMEOUT_S = 180.0
TRIES_MAX = 3


RerankerOpener = Callable[[Version], Awaitable[Reranker]]


class _Embed(msgspec.Struct, frozen=True, array_like=True):
    version: str
    texts: tuple[str, ...]


class _Rank(msgspec.Struct, frozen=True, array_like=True):
    version: str
    query: str
    texts: tuple[str, ...]


class _Embedded(msgspec.Struct, frozen=True, array_like=True):
    """`vectors`: float32, little-endian, a row after the other."""

    dimensions: int
    vectors: bytes


# -- the replica


def answer_embedder(embedders: Shelf[Embedder], rerankers: Shelf[Reranker]) -> Handler:
    """The link methods "embed", "rank", "open" (a `Version`; answers with its dimensions, 0 for a reranker)
    and "ping"."""

    async def answer(method: str, body: bytes) -> AsyncGenerator[bytes]:
        match method:
            case "embed":
                asked = msgspec.msgpack.decode(body, type=_Embed)
                embedder = await embedders.get(asked.version)
                vectors = await embedder.embed(asked.texts)
                yield encode(_Embedded(embedder.dimensions, vectors.astype("<f4", copy=False).tobytes()))
            case "rank":
                pairs = msgspec.msgpack.decode(body, type=_Rank)
                yield encode(await (await rerankers.get(pairs.version)).rank(pairs.query, pairs.texts))
            case "open":
                version = msgspec.msgpack.decode(body, type=Version)
                if version.engine == "cross-encoder":
                    await rerankers.open(version)
                    yield encode(0)
                else:
                    yield encode((await embedders.open(version)).dimensions)
            case "ping":
                await embedders.ping()
                await rerankers.ping()
                yield b""
            case _:
                raise NotFound(f"An embedder has no method {method!r}.")

    return answer


# -- who asks


class Replicas:
    """The way to a replica that has a version; one that hasn't is told to open it."""

    def __init__(self, links: Links, roster: Roster, version: Version) -> None:
        self._links = links
        self._roster = roster
        self._version = version

    @property
    def count(self) -> int:
        return len(self._roster.members(ROLE))

    async def ask(self, method: str, body: bytes) -> bytes:
        """Another replica is asked when one dies: to embed twice harms nobody."""
        for _ in range(TRIES_MAX - 1):
            member = self._choose()
            try:
                return await self._ask_open(member, method, body)
            except Unavailable:
                if not self._roster.suspects(member):
                    raise
        return await self._ask_open(self._choose(), method, body)

    async def _ask_open(self, member: Member, method: str, body: bytes) -> bytes:
        """Has it open the version first if it holds another."""
        try:
            return await self._ask(member, method, body, ASK_TIMEOUT_S)
        except OtherVersion:
            await self._open(member)
            return await self._ask(member, method, body, ASK_TIMEOUT_S)

    async def open(self) -> int:
        """The dimensions of its vectors. Raises what opening it at the replica raises."""
        return await self._open(self._choose())

    async def _open(self, member: Member) -> int:
        answer = await self._ask(member, "open", encode(self._version), OPEN_TIMEOUT_S)
        return msgspec.msgpack.decode(answer, type=int)

    def _choose(self) -> Member:
        """The less busy of two: as good as the least busy of all, whose number is a second old."""
        members = self._roster.members(ROLE)
        if not members:
            raise Unavailable("No embedder is alive.", next="It restarts by itself.", retry_after_s=1.0)
        two = random.sample(members, min(2, len(members)))
        return min(two, key=lambda member: member.load.get("waiting", 0.0))

    async def _ask(self, member: Member, method: str, body: bytes, timeout_s: float) -> bytes:
        link = None
        try:
            link = await self._links.to(member.address)
            return await link.ask(method, body, timeout_s=timeout_s)
        except Unavailable:
            if link is None or link.lost:
                self._roster.suspect(member)
            raise


class RemoteEmbedder:
    """Implements `Embedder`: a version that any of the replicas embeds with."""

    def __init__(self, replicas: Replicas, version: Version, dimensions: int) -> None:
        self._replicas = replicas
        self._version = version
        self._dimensions = dimensions

    @classmethod
    async def open(cls, links: Links, roster: Roster, version: Version) -> RemoteEmbedder:
        """Raises what a replica raises when it can't open it, `Unavailable` if there is none."""
        replicas = Replicas(links, roster, version)
        return cls(replicas, version, await replicas.open())

    @property
    def name(self) -> str:
        return self._version.id

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def __repr__(self) -> str:
        return f"<RemoteEmbedder {self.name} at {self._replicas.count} replicas>"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Many texts go in parts, as many at a time as there are replicas."""
        parts = [tuple(texts[at : at + TEXTS_MAX]) for at in range(0, len(texts), TEXTS_MAX)]
        if not parts:
            return np.empty((0, self._dimensions), np.float32)
        room = asyncio.Semaphore(max(1, self._replicas.count))

        async def embed(part: tuple[str, ...]) -> Vectors:
            async with room:
                return await self._embed(part)

        return np.concatenate(await asyncio.gather(*map(embed, parts)))

    async def _embed(self, texts: tuple[str, ...]) -> Vectors:
        answer = await self._replicas.ask("embed", encode(_Embed(self.name, texts)))
        embedded = msgspec.msgpack.decode(answer, type=_Embedded)
        return np.frombuffer(embedded.vectors, "<f4").reshape(len(texts), embedded.dimensions)

    async def ping(self) -> None:
        """Returns once a replica has it."""
        await self._replicas.open()

    async def close(self) -> None:
        """Replicas drop what nobody asks for when they need the room."""


class RemoteReranker:
    """Implements `Reranker`."""

    def __init__(self, links: Links, roster: Roster, version: Version) -> None:
        self._replicas = Replicas(links, roster, version)
        self._version = version

    @property
    def name(self) -> str:
        return self._version.id

    async def rank(self, query: str, texts: Sequence[str]) -> list[float]:
        answer = await self._replicas.ask("rank", encode(_Rank(self.name, query, tuple(texts))))
        return msgspec.msgpack.decode(answer, type=list[float])

    async def ping(self) -> None:
        await self._replicas.open()

    async def close(self) -> None:
        return None
