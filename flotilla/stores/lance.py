"""Knowledge on LanceDB: a database per tenant, a table per collection.

upsert ─ hash: changed? ─ chunk ─ embed ─ one commit ─ upkeep in the background
search ─ embed ─┬─ BM25 ────┬─ fuse ─ hits
                └─ vectors ─┘
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from datetime import timedelta

import lancedb
import structlog

from flotilla.core.errors import FlotillaError, Refused, TooLarge
from flotilla.core.knowledge import Document, Hit, Ingested, SearchMode
from flotilla.core.policy.chunking import PASSAGE_CHARS_MAX, chunk
from flotilla.core.policy.fusion import fuse
from flotilla.core.ports import Embedder, Vectors
from flotilla.stores.lance_table import VECTORS_SCANNED_MAX, Found, PassageTable, translated, words

log = structlog.get_logger()

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
DOCUMENT_ID_CHARS_MAX = 512
DOCUMENT_CHARS_MAX = 1_000_000
QUERY_CHARS_MAX = 16_384
HITS_MAX = 200
BATCH_DOCUMENTS = 128  # per commit
CANDIDATES = 150  # of each kind of search, before fusion
# What is embedded of a query, from its end: a long message ends with what it asks for, and embedding takes
# 0.1 ms a token. The rho_bank questions are found no better when all of each is embedded.
QUESTION_CHARS_MAX = 400

Key = tuple[str, str]  # tenant, collection


class LanceKnowledge:
    """Knowledge under `uri`: a folder, or an object store (`s3://…`). Each tenant is a folder of its own."""

    def __init__(
        self, uri: str, embedder: Embedder, *, vectors_scanned_max: int = VECTORS_SCANNED_MAX
    ) -> None:
        """A collection of more than `vectors_scanned_max` passages gets an approximate vector index."""
        self._uri = uri.rstrip("/")
        self._embedder = embedder
        self._vectors_scanned_max = vectors_scanned_max
        self._databases: dict[str, lancedb.AsyncConnection] = {}
        self._tables: dict[Key, PassageTable] = {}
        self._upkeep: dict[Key, asyncio.Task[None]] = {}
        self._stale: set[Key] = set()

    def __repr__(self) -> str:
        return f"<LanceKnowledge {self._uri}: {len(self._tables)} open, {len(self._upkeep)} in upkeep>"

    # --- writing ---

    async def upsert(self, tenant: str, collection: str, documents: Sequence[Document]) -> Ingested:
        """Creates the collection if need be. Of two documents with the same id the last one counts."""
        for document in documents:
            _check_document(document)
        latest = list({document.id: document for document in documents}.values())
        table = await self._table(tenant, collection, create=True)
        done = Ingested()
        for start in range(0, len(latest), BATCH_DOCUMENTS):
            done = _sum(done, await self._upsert(table, latest[start : start + BATCH_DOCUMENTS]))
        if done.passages:
            self._tend((tenant, collection))
        return done

    async def _upsert(self, table: PassageTable, documents: Sequence[Document]) -> Ingested:
        hashes = {document.id: self._hash(document) for document in documents}
        known = await table.hashes(list(hashes))
        news = [document for document in documents if known.get(document.id) != hashes[document.id]]
        unchanged = len(documents) - len(news)
        if not news:
            return Ingested(unchanged=unchanged)
        passages = [passage for document in news for passage in chunk(document)]
        vectors = await self._embedder.embed([words(passage) for passage in passages])
        marks = [hashes[passage.document] for passage in passages]
        await table.replace([document.id for document in news], passages, marks, vectors)
        changed = sum(document.id in known for document in news)
        return Ingested(
            added=len(news) - changed, changed=changed, unchanged=unchanged, passages=len(passages)
        )

    async def remove(self, tenant: str, collection: str, document: str) -> bool:
        gone = await (await self._table(tenant, collection)).remove(document)
        if gone:
            self._tend((tenant, collection))
        return gone

    def _hash(self, document: Document) -> str:
        """Changes with the content, and with how passages and vectors are made of it."""
        parts = (self._embedder.name, str(PASSAGE_CHARS_MAX), document.title, document.text)
        return hashlib.sha256("\x00".join(parts).encode()).hexdigest()

    # --- reading ---

    async def documents(self, tenant: str, collection: str) -> dict[str, str]:
        return await (await self._table(tenant, collection)).hashes()

    async def search(
        self, tenant: str, collection: str, query: str, *, limit: int, mode: SearchMode = "hybrid"
    ) -> tuple[Hit, ...]:
        """Hits of mode `bm25` score by BM25, of `vector` by cosine, of `hybrid` by 1 / place.

        Of a query longer than `QUESTION_CHARS_MAX` only the end is compared with vectors; `similarity` is to that.
        """
        _check_query(query, limit)
        table = await self._table(tenant, collection)
        depth = max(limit, CANDIDATES)

        async def by_words() -> Found | None:
            return None if mode == "vector" else await table.by_words(query, depth)

        async def by_vector() -> tuple[Vectors, Found | None]:
            vector = (await self._embedder.embed([_question(query)]))[0]
            return vector, None if mode == "bm25" else await table.by_vector(vector, depth)

        worded, (vector, near) = await asyncio.gather(by_words(), by_vector())
        return _hits(mode, [found for found in (worded, near) if found], vector, limit)

    # --- health and end ---

    async def ping(self) -> None:
        """Raises `Unavailable` if the store can't be reached or the embedder can't embed."""
        async with translated("ping"):
            await (await self._database("ping")).list_tables(limit=1)
        await self._embedder.ping()

    async def settle(self) -> None:
        """Returns once all that was written is in the indices."""
        while self._upkeep:
            await asyncio.wait(self._upkeep.values())

    async def close(self) -> None:
        for task in self._upkeep.values():
            task.cancel()
        await self.settle()
        for table in self._tables.values():
            table.close()
        for database in self._databases.values():
            database.close()
        self._tables.clear()
        self._databases.clear()

    # --- tables ---

    async def _table(self, tenant: str, collection: str, *, create: bool = False) -> PassageTable:
        _check_name("tenant", tenant)
        _check_name("collection", collection)
        key = (tenant, collection)
        if key not in self._tables:
            database = await self._database(tenant)
            self._tables[key] = await (
                PassageTable.create(database, collection, self._embedder.dimensions)
                if create
                else PassageTable.open(database, collection)
            )
        return self._tables[key]

    async def _database(self, tenant: str) -> lancedb.AsyncConnection:
        if tenant not in self._databases:
            # Zero: every read looks for newer versions, as another process may have removed a document.
            async with translated(tenant):
                self._databases[tenant] = await lancedb.connect_async(
                    f"{self._uri}/{tenant}", read_consistency_interval=timedelta(0)
                )
        return self._databases[tenant]

    # --- upkeep ---

    def _tend(self, key: Key) -> None:
        """Brings the indices up to date in the background; searches and writes go on meanwhile."""
        self._stale.add(key)
        if key not in self._upkeep:
            self._upkeep[key] = asyncio.create_task(self._keep_up(key), name=f"upkeep {key}")
            self._upkeep[key].add_done_callback(lambda _: self._upkeep.pop(key))

    async def _keep_up(self, key: Key) -> None:
        try:
            while key in self._stale:
                self._stale.discard(key)
                await self._tables[key].optimize(self._vectors_scanned_max)
        except FlotillaError as problem:
            # Searches stay right, only slower; the next write tries again.
            log.warning("knowledge_upkeep_failed", tenant=key[0], collection=key[1], reason=str(problem))


def _hits(mode: SearchMode, found: Sequence[Found], query: Vectors, limit: int) -> tuple[Hit, ...]:
    """The first `limit` hits of what each kind of search found."""
    at = {id: (one, place) for one in found for place, id in enumerate(one.ids)}

    def hit(id: str, score: float) -> Hit:
        one, place = at[id]
        cosine = float(one.vectors[place] @ query)
        return Hit(passage=one.passage(place), score=score, similarity=min(max(cosine, 0.0), 1.0))

    if mode == "hybrid":
        documents = {id: one.documents[place] for id, (one, place) in at.items()}
        fused = fuse([one.ids for one in found], documents)
        return tuple(hit(id, 1.0 / place) for place, id in enumerate(fused[:limit], start=1))
    (only,) = found
    hits = (hit(id, score) for id, score in zip(only.ids[:limit], only.scores, strict=False))
    return tuple(hits)


def _question(query: str) -> str:
    """The end of `query`, from the beginning of a word."""
    end = query.strip()[-QUESTION_CHARS_MAX:]
    return end if len(query.strip()) <= QUESTION_CHARS_MAX else end.split(maxsplit=1)[-1]


def _sum(a: Ingested, b: Ingested) -> Ingested:
    return Ingested(
        added=a.added + b.added,
        changed=a.changed + b.changed,
        unchanged=a.unchanged + b.unchanged,
        passages=a.passages + b.passages,
    )


def _check_name(field: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise Refused(
            f"{name[:80]!r} can't be the name of a {field}.",
            field=field,
            next="Use 1 to 63 lower-case letters, digits, hyphens and underscores.",
        )


def _check_document(document: Document) -> None:
    if not 0 < len(document.id) <= DOCUMENT_ID_CHARS_MAX:
        raise Refused(f"A document id has 1 to {DOCUMENT_ID_CHARS_MAX} characters.", field="id")
    if not document.text.strip():
        raise Refused(f"The document {document.id!r} has no text.", field="text", next="Send its text.")
    if len(document.text) > DOCUMENT_CHARS_MAX:
        raise TooLarge(
            f"The document {document.id!r} has {len(document.text)} characters of at most "
            f"{DOCUMENT_CHARS_MAX}.",
            field="text",
            next="Send it in parts.",
        )


def _check_query(query: str, limit: int) -> None:
    if not query.strip():
        raise Refused("The query is empty.", field="query", next="Say what to look for.")
    if len(query) > QUERY_CHARS_MAX:
        detail = f"The query has {len(query)} of at most {QUERY_CHARS_MAX} characters."
        raise TooLarge(detail, field="query", next="Shorten it.")
    if not 1 <= limit <= HITS_MAX:
        raise Refused(f"The limit is {limit}.", field="limit", next=f"Choose 1 to {HITS_MAX}.")
