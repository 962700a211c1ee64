"""Ports over links: a model or a knowledge base that lives in another process.

Each door has two ends in this file. The answering end wraps any implementation of the port; the
asking end is one itself, so nothing behind it knows how far away the work is done.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from actors.frames import encode
from actors.link import Handler, Link, Links
from actors.roster import Roster
from flotilla.core.errors import NotFound, Unavailable
from flotilla.core.generation import Finished, Generated, Piece, Prompt
from flotilla.core.knowledge import Document, Hit, Ingested, SearchMode
from flotilla.core.members import Member
from flotilla.core.ports import Knowledge, Model

INGEST_TIMEOUT_S = 300.0

_decode_generated = msgspec.msgpack.Decoder(Piece | Finished).decode
_decode_prompt = msgspec.msgpack.Decoder(Prompt).decode


class _Door:
    """The asking end: finds a member of a role, and suspects it when its link breaks."""

    role: str

    def __init__(self, links: Links, roster: Roster) -> None:
        self._links = links
        self._roster = roster

    async def _reach(self) -> tuple[Member, Link]:
        members = self._roster.members(self.role)
        if not members:
            raise Unavailable(f"No {self.role} is alive.", next="It restarts by itself.", retry_after_s=1.0)
        member = random.choice(members)
        try:
            return member, await self._links.to(member.address)
        except Unavailable:
            self._roster.suspect(member)
            raise

    async def _ask(self, method: str, body: bytes, timeout_s: float = 15.0) -> bytes:
        member, link = await self._reach()
        try:
            return await link.ask(method, body, timeout_s=timeout_s)
        except Unavailable:
            if link.lost:
                self._roster.suspect(member)
            raise

    async def ping(self) -> None:
        await self._ask("ping", b"", timeout_s=5.0)

    async def close(self) -> None:
        return None


# -- models


def answer_model(model: Model) -> Handler:
    async def answer(method: str, body: bytes) -> AsyncGenerator[bytes]:
        match method:
            case "generate":
                async with aclosing(model.generate(_decode_prompt(body))) as parts:
                    async for part in parts:
                        yield encode(part)
            case "ping":
                await model.ping()
                yield b""
            case _:
                raise NotFound(f"A model has no method {method!r}.")

    return answer


class RemoteModel(_Door):
    """Implements `Model`."""

    role = "model"

    @property
    def name(self) -> str:
        members = self._roster.members(self.role)
        return members[0].info.get("name", "") if members else ""

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        member, link = await self._reach()
        try:
            async with aclosing(link.call("generate", encode(prompt))) as items:
                async for item in items:
                    yield _decode_generated(item)
        except Unavailable:
            if link.lost:
                self._roster.suspect(member)
            raise


# -- knowledge


class _Search(msgspec.Struct, frozen=True, array_like=True):
    tenant: str
    collection: str
    query: str
    limit: int
    mode: SearchMode


class _Upsert(msgspec.Struct, frozen=True, array_like=True):
    tenant: str
    collection: str
    documents: tuple[Document, ...]


class _Name(msgspec.Struct, frozen=True, array_like=True):
    tenant: str
    collection: str
    document: str = ""


def answer_knowledge(knowledge: Knowledge) -> Handler:
    async def answer(method: str, body: bytes) -> AsyncGenerator[bytes]:
        match method:
            case "search":
                ask = msgspec.msgpack.decode(body, type=_Search)
                hits = await knowledge.search(
                    ask.tenant, ask.collection, ask.query, limit=ask.limit, mode=ask.mode
                )
                yield encode(hits)
            case "upsert":
                batch = msgspec.msgpack.decode(body, type=_Upsert)
                yield encode(await knowledge.upsert(batch.tenant, batch.collection, batch.documents))
            case "remove":
                name = msgspec.msgpack.decode(body, type=_Name)
                yield encode(await knowledge.remove(name.tenant, name.collection, name.document))
            case "documents":
                name = msgspec.msgpack.decode(body, type=_Name)
                yield encode(await knowledge.documents(name.tenant, name.collection))
            case "ping":
                await knowledge.ping()
                yield b""
            case _:
                raise NotFound(f"A knowledge base has no method {method!r}.")

    return answer


class RemoteKnowledge(_Door):
    """Implements `Knowledge`."""

    role = "librarian"

    async def search(
        self, tenant: str, collection: str, query: str, *, limit: int, mode: SearchMode = "hybrid"
    ) -> tuple[Hit, ...]:
        answer = await self._ask("search", encode(_Search(tenant, collection, query, limit, mode)))
        return msgspec.msgpack.decode(answer, type=tuple[Hit, ...])

    async def upsert(self, tenant: str, collection: str, documents: Sequence[Document]) -> Ingested:
        body = encode(_Upsert(tenant, collection, tuple(documents)))
        return msgspec.msgpack.decode(await self._ask("upsert", body, INGEST_TIMEOUT_S), type=Ingested)

    async def remove(self, tenant: str, collection: str, document: str) -> bool:
        answer = await self._ask("remove", encode(_Name(tenant, collection, document)))
        return msgspec.msgpack.decode(answer, type=bool)

    async def documents(self, tenant: str, collection: str) -> dict[str, str]:
        answer = await self._ask("documents", encode(_Name(tenant, collection)))
        return msgspec.msgpack.decode(answer, type=dict[str, str])
