"""Knowledge on LanceDB: a database per tenant, a table per collection.

upsert ─ hash: changed? ─ chunk ─ embed ─ one commit ─ upkeep in the background
search ─ embed ─┬─ BM25 ────┬─ fuse ─ hits
                └─ vectors ─┘
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from flotilla.core.errors import Conflict, FlotillaError, Unavailable
from flotilla.core.knowledge import Document, Hit, Ingested, Passage, Reembedding, SearchMode
from flotilla.core.policy.chunking import PASSAGE_CHARS_MAX, chunk
from flotilla.core.ports import Embedder, Reranker, Vectors
from flotilla.stores.lance_checks import DOCUMENT_CHARS_MAX, check_document, check_query
from flotilla.stores.lance_columns import Column, Layout, words
from flotilla.stores.lance_ranking import RERANKED_MAX, SecondLook, hits_of
from flotilla.stores.lance_reembedding import Reembedders
from flotilla.stores.lance_shelves import Shelves
from flotilla.stores.lance_table import VECTORS_SCANNED_MAX, Found, PassageTable

__all__ = ["DOCUMENT_CHARS_MAX", "LanceKnowledge"]

log = structlog.get_logger()

BATCH_DOCUMENTS = 128  # per commit
CANDIDATES = 150  # of each kind of search, before fusion
# What is embedded of a query, from its end: a long message ends with what it asks for, and embedding takes
# 0.1 ms a token. The rho_bank questions are found no better when all of each is embedded.
QUESTION_CHARS_MAX = 400
# How often a search or a write starts over because its collection has switched to another embedder.
SWITCHES_MAX = 5

T = TypeVar("T")

Find = Callable[[str], Awaitable[Embedder]]
"""The embedder of that name. Raises `Unavailable` if there is none here."""


class LanceKnowledge:
    """Knowledge under `uri`: a folder, or an object store (`s3://…`). Each tenant is a folder of its own.

    A collection is searched by the embedder that made its vectors, which `reembed` changes."""

    def __init__(
        self,
        uri: str,
        embedder: Embedder,
        *,
        find: Find | None = None,
        reranker: Reranker | None = None,
        vectors_scanned_max: int = VECTORS_SCANNED_MAX,
    ) -> None:
        """`embedder` is for new collections; `find` finds those that made others. The best of a hybrid search
        are put to `reranker`, if there is one. A collection of more than `vectors_scanned_max` passages gets
        an approximate vector index."""
        self._embedder = embedder
        self._known = {embedder.name: embedder}
        self._find = find
        self._second_look = SecondLook(reranker) if reranker else None
        self._shelves = Shelves(uri, vectors_scanned_max=vectors_scanned_max)
        self._reembedders: Reembedders | None = None
        self._reembedding = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<LanceKnowledge {self._embedder.name}: {self._shelves!r}>"

    # --- writing ---

    async def upsert(self, tenant: str, collection: str, documents: Sequence[Document]) -> Ingested:
        """Creates the collection if need be. Of two documents with the same id the last one counts."""
        for document in documents:
            check_document(document)
        latest = list({document.id: document for document in documents}.values())
        table = await self._shelves.table(tenant, collection, create=self._embedder)
        done = Ingested()
        for start in range(0, len(latest), BATCH_DOCUMENTS):
            done = _sum(done, await self._upsert(table, latest[start : start + BATCH_DOCUMENTS]))
        if done.passages:
            self._shelves.tend((tenant, collection))
        return done

    async def _upsert(self, table: PassageTable, documents: Sequence[Document]) -> Ingested:
        hashes = {document.id: _hash(document) for document in documents}
        known = await table.hashes(list(hashes))
        news = [document for document in documents if known.get(document.id) != hashes[document.id]]
        unchanged = len(documents) - len(news)
        if not news:
            return Ingested(unchanged=unchanged)
        passages = [passage for document in news for passage in chunk(document)]
        marks = [hashes[passage.document] for passage in passages]
        await self._replace(table, [document.id for document in news], passages, marks)
        changed = sum(document.id in known for document in news)
        return Ingested(
            added=len(news) - changed, changed=changed, unchanged=unchanged, passages=len(passages)
        )

    async def _replace(
        self, table: PassageTable, documents: list[str], passages: list[Passage], marks: list[str]
    ) -> None:
        """With the vectors of every embedder that the collection has, or is about to have."""
        vectors: dict[str, Vectors] = {}
        texts = [words(passage) for passage in passages]

        async def replace(layout: Layout) -> None:
            await self._embed(layout, texts, vectors)
            await table.replace(documents, passages, marks, layout, vectors)

        await _with_layout(table, replace)

    async def _embed(self, layout: Layout, texts: list[str], vectors: dict[str, Vectors]) -> None:
        """Adds to `vectors` what is missing. A new embedder that fails stops nobody: what it owes is made up
        for before the switch."""
        for column in layout.written:
            if column.embedder in vectors:
                continue
            try:
                vectors[column.embedder] = await (await self._embedder_of(column)).embed(texts)
            except FlotillaError as problem:
                if column == layout.live:
                    raise
                log.warning("vectors_postponed", embedder=column.embedder, reason=str(problem))

    async def remove(self, tenant: str, collection: str, document: str) -> bool:
        gone = await (await self._shelves.table(tenant, collection)).remove(document)
        if gone:
            self._shelves.tend((tenant, collection))
        return gone

    # --- reading ---

    async def documents(self, tenant: str, collection: str) -> dict[str, str]:
        return await (await self._shelves.table(tenant, collection)).hashes()

    async def search(
        self, tenant: str, collection: str, query: str, *, limit: int, mode: SearchMode = "hybrid"
    ) -> tuple[Hit, ...]:
        """Hits of mode `bm25` score by BM25, of `vector` by cosine, of `hybrid` by 1 / place.

        Of a query longer than `QUESTION_CHARS_MAX` only the end is compared with vectors; `similarity` is to that.
        """
        check_query(query, limit)
        table = await self._shelves.table(tenant, collection)
        look = self._second_look if mode == "hybrid" else None
        first = max(limit, RERANKED_MAX) if look else limit

        async def look_up(layout: Layout) -> tuple[Hit, ...]:
            return await self._search(table, layout.live, query, first, mode)

        hits = await _with_layout(table, look_up)
        return (await look.order(query, hits))[:limit] if look and hits else hits

    async def _search(
        self, table: PassageTable, column: Column, query: str, limit: int, mode: SearchMode
    ) -> tuple[Hit, ...]:
        """By the embedder of `column`, in `column`: its name is another one once it isn't live any more."""
        depth = max(limit, CANDIDATES)

        async def by_words() -> Found | None:
            return None if mode == "vector" else await table.by_words(query, depth, column)

        async def by_vector() -> tuple[Vectors, Found | None]:
            vector = (await (await self._embedder_of(column)).embed([_question(query)]))[0]
            return vector, None if mode == "bm25" else await table.by_vector(vector, depth, column)

        worded, (vector, near) = await asyncio.gather(by_words(), by_vector())
        return hits_of(mode, [found for found in (worded, near) if found], vector, limit)

    # --- embedders ---

    async def reembed(self, embedder: Embedder) -> None:
        """Returns when every collection has the vectors of `embedder` and no others; new collections have them
        from now on. Searches and writes go on meanwhile. Whoever calls it again after it was stopped, or its
        process was killed, goes on where it was.

        Raises `Conflict` if another one is under way, `Unavailable` if some collections could not be done."""
        if self._reembedding.locked():
            raise Conflict("The collections are being given another embedder.", next="Stop that one first.")
        async with self._reembedding:
            self._embedder = self._known[embedder.name] = embedder
            self._reembedders = Reembedders(self._shelves, embedder)
            await self._reembedders.run()

    def reembedding(self) -> tuple[Reembedding, ...]:
        """How far the collections are, of the last call of `reembed` in this process."""
        return self._reembedders.progress() if self._reembedders else ()

    def forget(self, embedder: str) -> None:
        """Lets go of one that no collection needs; it is found again if need be."""
        if embedder != self._embedder.name:
            self._known.pop(embedder, None)

    @property
    def unranked(self) -> int:
        """How many searches were answered without the reranker's opinion."""
        return self._second_look.skipped if self._second_look else 0

    async def _embedder_of(self, column: Column) -> Embedder:
        """Raises `Unavailable` if it isn't here."""
        if column.embedder not in self._known:
            if self._find is None:
                raise Unavailable(
                    f"The vectors were made by {column.embedder!r}, which isn't loaded here.",
                    next="Load it, or embed the documents anew.",
                    retry_after_s=5.0,
                )
            self._known[column.embedder] = await self._find(column.embedder)
        return self._known[column.embedder]

    # --- health and end ---

    async def ping(self) -> None:
        """Raises `Unavailable` if the store can't be reached or the embedder can't embed."""
        await self._shelves.ping()
        await self._embedder.ping()

    async def settle(self) -> None:
        """Returns once all that was written is in the indices."""
        await self._shelves.settle()

    async def close(self) -> None:
        await self._shelves.close()


async def _with_layout(table: PassageTable, act: Callable[[Layout], Awaitable[T]]) -> T:
    """What `act` returns; it starts over when it fails because the layout is another one by now."""
    for _ in range(SWITCHES_MAX - 1):
        layout = table.layout
        try:
            return await act(layout)
        except FlotillaError:
            if not await table.changed(layout):
                raise
    return await act(table.layout)


def _hash(document: Document) -> str:
    """Changes with the content, and with how passages are made of it."""
    parts = (str(PASSAGE_CHARS_MAX), document.title, document.text)
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()


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
