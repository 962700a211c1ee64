"""A LanceDB table of passages: what it is asked, what it answers, and its errors in our words.

A row is a passage; it carries its document's hash. The passage id is declared the primary key; without
that, two processes that ingest the same new document at once leave it there twice (tried, LanceDB 0.40).
Full text and vectors that aren't in an index yet are scanned, and deleted rows are masked: a search is
right at once, and `optimize` only makes it fast again.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import lancedb
import pyarrow as pa
from lancedb.expr import col
from lancedb.index import FTS, HnswSq

from flotilla.core.errors import Conflict, FlotillaError, NotFound, Unavailable
from flotilla.core.knowledge import Passage
from flotilla.core.ports import Vectors

TRIES_MAX = 8
VERSIONS_KEPT = timedelta(hours=1)  # for searches that are under way
VECTORS_SCANNED_MAX = 20_000  # up to here, comparing all takes some 10 ms and misses nothing

# Else statistics of a vector index, which `optimize` reads, carry all its centroids, with a warning each time.
os.environ.setdefault("LANCE_INCLUDE_VECTOR_CENTROIDS", "false")

Rows = Any  # pyarrow.Table; pyarrow has no types
T = TypeVar("T")


class Found:
    """What one kind of search found, best first; `vectors` has the shape `(found, dimensions)`."""

    def __init__(self, rows: Rows, score: str) -> None:
        self._rows = rows
        self.ids: list[str] = rows["id"].to_pylist()
        self.documents: list[str] = rows["document"].to_pylist()
        self.scores: list[float] = rows[score].to_pylist()
        vectors = rows["vector"].combine_chunks()
        self.vectors: Vectors = vectors.flatten().to_numpy().reshape(len(rows), vectors.type.list_size)

    def passage(self, place: int) -> Passage:
        """Made only when asked for: most of what is found isn't shown."""
        title, text = (self._rows[column][place].as_py() for column in ("title", "text"))
        return Passage(id=self.ids[place], document=self.documents[place], title=title, text=text)


class PassageTable:
    """One collection of one tenant."""

    def __init__(self, name: str, table: lancedb.AsyncTable) -> None:
        self._name = name
        self._table = table

    @classmethod
    async def open(cls, database: lancedb.AsyncConnection, name: str) -> PassageTable:
        """Raises `NotFound` if there is none."""
        async with translated(name):
            return cls(name, await database.open_table(name))

    @classmethod
    async def create(cls, database: lancedb.AsyncConnection, name: str, dimensions: int) -> PassageTable:
        """Opens it if it is there."""
        async with translated(name):
            table = cls(name, await database.create_table(name, schema=_schema(dimensions), exist_ok=True))
        await table.index_words()
        return table

    def close(self) -> None:
        self._table.close()

    # --- reading ---

    async def by_words(self, query: str, depth: int) -> Found:
        """The `depth` best by BM25."""
        return await self._found(self._table.query().nearest_to_text(query, columns="words"), "_score", depth)

    async def by_vector(self, vector: Vectors, depth: int) -> Found:
        """The `depth` nearest; their score is the cosine."""
        # An index holds shortened vectors; the best of twice as many are compared in full.
        near = self._table.query().nearest_to(vector).distance_type("cosine").refine_factor(2)
        found = await self._found(near, "_distance", depth)
        found.scores = [1.0 - distance for distance in found.scores]
        return found

    async def _found(self, query: Any, score: str, depth: int) -> Found:
        columns = ["id", "document", "title", "text", "vector", score]
        async with translated(self._name):
            return Found(await query.select(columns).limit(depth).to_arrow(), score)

    async def hashes(self, documents: Sequence[str] | None = None) -> dict[str, str]:
        """Content hash by document id, of all or of those of `documents` that are here."""
        query = self._table.query().select(["document", "hash"])
        if documents is not None:
            query = query.where(col("document").isin(documents))
        async with translated(self._name):
            rows: Rows = await query.to_arrow()
        return dict(zip(rows["document"].to_pylist(), rows["hash"].to_pylist(), strict=True))

    # --- writing ---

    async def replace(
        self, documents: Sequence[str], passages: Sequence[Passage], hashes: Sequence[str], vectors: Vectors
    ) -> None:
        """`passages` become all there is of `documents`, in one commit: no search sees a mixture."""
        rows = _rows(passages, hashes, vectors)
        gone = col("document").isin(documents)
        merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge = merge.when_not_matched_by_source_delete(gone)

        async def execute() -> None:
            # Awaits in the library's async twin of a sync method, so its declared type is the sync one's.
            await cast(Any, merge.execute(rows))

        await self._commit(execute)

    async def remove(self, document: str) -> bool:
        gone: Any = col("document").isin([document])
        deleted: Any = await self._commit(lambda: self._table.delete(gone))
        return deleted.num_deleted_rows > 0

    async def index_words(self) -> None:
        if not await self._indexed("words"):
            index = FTS()  # stems English, drops its stop words
            await self._commit(lambda: self._create_index("words", index))

    async def optimize(self, vectors_scanned_max: int) -> None:
        """Brings the indices up to date, joins small files, drops old versions."""
        await self.index_words()
        if await self._table.count_rows() > vectors_scanned_max and not await self._indexed("vector"):
            index = HnswSq(distance_type="cosine")
            await self._commit(lambda: self._create_index("vector", index))
        await self._commit(lambda: self._table.optimize(cleanup_older_than=VERSIONS_KEPT))

    async def _create_index(self, column: str, config: FTS | HnswSq) -> None:
        await self._table.create_index(column, config=config)

    async def _indexed(self, column: str) -> bool:
        async with translated(self._name):
            return any(index.columns == [column] for index in await self._table.list_indices())

    async def _commit(self, call: Callable[[], Awaitable[T]]) -> T:
        """Tries again when another writer was first. Raises `Conflict` after `TRIES_MAX`, in about 3 s."""
        for tries in range(1, TRIES_MAX):
            try:
                async with translated(self._name):
                    return await call()
            except Conflict:
                await asyncio.sleep(random.uniform(0, 0.01 * 2**tries))
        async with translated(self._name):
            return await call()


# --- rows ---


def words(passage: Passage) -> str:
    """What is indexed and embedded: a passage alone often doesn't say what it is about."""
    return f"{passage.title}\n{passage.text}"


def _schema(dimensions: int) -> Any:
    primary = {"lance-schema:unenforced-primary-key": "true"}
    key = pa.field("id", pa.string(), nullable=False, metadata=primary)
    texts = [pa.field(n, pa.string(), nullable=False) for n in ("document", "title", "text", "words", "hash")]
    return pa.schema([key, *texts, pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False)])


def _rows(passages: Sequence[Passage], hashes: Sequence[str], vectors: Vectors) -> Rows:
    columns: dict[str, Any] = {
        "id": [passage.id for passage in passages],
        "document": [passage.document for passage in passages],
        "title": [passage.title for passage in passages],
        "text": [passage.text for passage in passages],
        "words": [words(passage) for passage in passages],
        "hash": hashes,
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1]),
    }
    return pa.table(columns, schema=_schema(vectors.shape[1]))


# --- the seam ---


@asynccontextmanager
async def translated(collection: str) -> AsyncGenerator[None]:
    """Raises LanceDB's errors as ours."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as problem:  # all that LanceDB raises
        raise _translation(str(problem), collection) from problem


def _translation(reason: str, collection: str) -> FlotillaError:
    if "not found" in reason.lower():
        return NotFound(
            f"There is no collection {collection!r}.",
            field="collection",
            next="Add a document to it: that creates it.",
        )
    if "conflict" in reason.lower():
        return Conflict(
            f"Others kept changing the collection {collection!r}.",
            next="Try again in a second.",
            retry_after_s=1.0,
        )
    # LanceDB appends the line of Rust that it came from.
    return Unavailable(
        f"The knowledge store failed: {reason.split(', /', maxsplit=1)[0][:200]}", retry_after_s=5.0
    )
