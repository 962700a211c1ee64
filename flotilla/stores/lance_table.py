"""A LanceDB table of passages: what it is asked, what it answers.

A row is a passage; it carries its document's hash. The passage id is declared the primary key; without
that, two processes that ingest the same new document at once leave it there twice (tried, LanceDB 0.40).
Full text and vectors that aren't in an index yet are scanned, and deleted rows are masked: a search is
right at once, and `optimize` only makes it fast again.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import lancedb
from lancedb.expr import col
from lancedb.index import FTS, HnswSq

from flotilla.core.errors import Conflict, NotFound, Unavailable
from flotilla.core.knowledge import Passage
from flotilla.core.ports import Vectors
from flotilla.stores import lance_columns
from flotilla.stores.lance_columns import LIVE, UNMARKED, Column, Layout, Rows, column_of, layout_of
from flotilla.stores.lance_errors import translated

TRIES_MAX = 8
VERSIONS_KEPT = timedelta(hours=1)  # for searches that are under way
VECTORS_SCANNED_MAX = 20_000  # up to here, comparing all takes some 10 ms and misses nothing

# Else statistics of a vector index, which `optimize` reads, carry all its centroids, with a warning each time.
os.environ.setdefault("LANCE_INCLUDE_VECTOR_CENTROIDS", "false")

T = TypeVar("T")


class Found:
    """What one kind of search found, best first; `vectors` has the shape `(found, dimensions)`."""

    def __init__(self, rows: Rows, score: str, vectors: str) -> None:
        self._rows = rows
        self.ids: list[str] = rows["id"].to_pylist()
        self.documents: list[str] = rows["document"].to_pylist()
        self.scores: list[float] = rows[score].to_pylist()
        self.vectors: Vectors = lance_columns.vectors_of(rows[vectors])

    def passage(self, place: int) -> Passage:
        """Made only when asked for: most of what is found isn't shown."""
        title, text = (self._rows[column][place].as_py() for column in ("title", "text"))
        return Passage(id=self.ids[place], document=self.documents[place], title=title, text=text)


class PassageTable:
    """One collection of one tenant. `layout` is as this process last saw it: who uses another one's gets an
    error, and looks again with `changed`."""

    def __init__(self, name: str, table: lancedb.AsyncTable, layout: Layout) -> None:
        self._name = name
        self._table = table
        self.layout = layout
        # One at a time in this process: they would only make each other try again.
        self._writing = asyncio.Lock()
        self._tidying = asyncio.Lock()

    @classmethod
    async def open(cls, database: lancedb.AsyncConnection, name: str) -> PassageTable:
        """Raises `NotFound` if there is none."""
        async with translated(name):
            table = await database.open_table(name)
            return cls(name, table, await _layout(table))

    @classmethod
    async def create(
        cls, database: lancedb.AsyncConnection, name: str, embedder: str, dimensions: int
    ) -> PassageTable:
        """Opens it, with the embedder that it has, if it is there."""
        try:
            return await cls.open(database, name)
        except NotFound:
            schema = lance_columns.schema_of([column_of(LIVE, embedder, dimensions)])
        async with translated(name):
            made = await database.create_table(name, schema=schema, exist_ok=True)
            table = cls(name, made, await _layout(made))
        await table.index_words()
        return table

    def close(self) -> None:
        self._table.close()

    async def changed(self, seen: Layout) -> bool:
        """Whether the layout is another one than what was `seen`; looks again if it seems not."""
        if self.layout == seen:
            async with translated(self._name):
                self.layout = await _layout(self._table)
        return self.layout != seen

    # --- reading ---

    async def by_words(self, query: str, depth: int, column: Column) -> Found:
        """The `depth` best by BM25."""
        found = self._table.query().nearest_to_text(query, columns="words")
        return await self._found(found, "_score", depth, column)

    async def by_vector(self, vector: Vectors, depth: int, column: Column) -> Found:
        """The `depth` nearest; their score is the cosine."""
        # An index holds shortened vectors; the best of twice as many are compared in full.
        near = self._table.query().nearest_to(vector).column(column.name).distance_type("cosine")
        found = await self._found(near.refine_factor(2), "_distance", depth, column)
        found.scores = [1.0 - distance for distance in found.scores]
        return found

    async def _found(self, query: Any, score: str, depth: int, column: Column) -> Found:
        columns = ["id", "document", "title", "text", column.name, score]
        async with translated(self._name):
            return Found(await query.select(columns).limit(depth).to_arrow(), score, column.name)

    async def hashes(self, documents: Sequence[str] | None = None) -> dict[str, str]:
        """Content hash by document id, of all or of those of `documents` that are here."""
        query = self._table.query().select(["document", "hash"])
        if documents is not None:
            query = query.where(col("document").isin(documents))
        async with translated(self._name):
            rows: Rows = await query.to_arrow()
        return dict(zip(rows["document"].to_pylist(), rows["hash"].to_pylist(), strict=True))

    async def count(self, *, without: Column | None = None) -> int:
        """Passages: all, or those that have no vector in that column."""
        async with translated(self._name):
            return await self._table.count_rows(f"{without.name} IS NULL" if without else None)

    async def rows_without(self, column: Column, limit: int) -> Rows:
        """Whole rows that have no vector in `column`."""
        async with translated(self._name):
            return await self._table.query().where(f"{column.name} IS NULL").limit(limit).to_arrow()

    async def documents_without(self, column: Column) -> int:
        """How many have a passage without a vector in `column`."""
        query = self._table.query().select(["document"]).where(f"{column.name} IS NULL")
        async with translated(self._name):
            return len(set((await query.to_arrow())["document"].to_pylist()))

    # --- writing ---

    async def replace(
        self,
        documents: Sequence[str],
        passages: Sequence[Passage],
        hashes: Sequence[str],
        layout: Layout,
        vectors: Mapping[str, Vectors],
    ) -> None:
        """`passages` become all there is of `documents`, in one commit: no search sees a mixture. `vectors` by
        embedder. Raises `Unavailable` if the layout is another one by now."""
        rows = lance_columns.rows_of(passages, hashes, layout, vectors)
        gone = col("document").isin(documents)
        merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        await self._merge(merge.when_not_matched_by_source_delete(gone), rows, layout)

    async def fill(self, rows: Rows, column: Column, vectors: Vectors) -> None:
        """Gives rows that were read as `rows_without` their vectors; one whose document has changed since, or
        has been removed, is left as it is."""
        place = rows.schema.get_field_index(column.name)
        filled = rows.set_column(place, rows.schema.field(place), lance_columns.array_of(vectors))
        merge = self._table.merge_insert("id").when_matched_update_all(where="target.hash = source.hash")
        await self._merge(merge, filled, self.layout)

    async def _merge(self, merge: Any, rows: Rows, layout: Layout) -> None:
        async def execute() -> None:
            # Each time: a row that is updated keeps what it has in columns that the writer doesn't know.
            if await self.changed(layout):
                raise _changed(self._name)
            await merge.execute(rows, on_bad_vectors="null")  # the nulls of vectors still to come

        async with self._writing:
            await self._commit(execute)

    async def remove(self, document: str) -> bool:
        gone: Any = col("document").isin([document])
        async with self._writing:
            deleted: Any = await self._commit(lambda: self._table.delete(gone))
        return deleted.num_deleted_rows > 0

    # --- columns of vectors ---

    async def add_column(self, column: Column) -> None:
        """Empty; costs nothing. Every passage written from now on has a vector in it."""
        await self._alter(lambda: self._table.add_columns([lance_columns.field_of(column)]))

    async def drop_columns(self, columns: Sequence[Column]) -> None:
        """With their indices."""
        await self._alter(lambda: cast(Any, self._table.drop_columns([column.name for column in columns])))

    async def switch(self) -> bool:
        """The vectors that were being made become the live ones, in one commit, if none is missing."""
        live, building = self.layout.live, self.layout.building
        assert building is not None
        names = (
            {"path": live.name, "rename": lance_columns.renamed(live, lance_columns.LEFT)},
            {"path": building.name, "rename": lance_columns.renamed(building, LIVE)},
        )
        return await self._alter(
            lambda: self._table.alter_columns(*cast(Any, names)), unless_without=building
        )

    async def _alter(
        self, call: Callable[[], Awaitable[object]], *, unless_without: Column | None = None
    ) -> bool:
        async with self._writing:
            if unless_without is not None and await self.count(without=unless_without):
                return False
            try:
                await self._commit(call)
            finally:
                await self.changed(self.layout)
        return True

    # --- indices ---

    async def index_words(self) -> None:
        if not await self.indexed("words"):
            index = FTS()  # stems English, drops its stop words
            await self._commit(lambda: self._create_index("words", index))

    async def index_vectors(self, column: Column) -> None:
        index = HnswSq(distance_type="cosine")
        await self._commit(lambda: self._create_index(column.name, index))

    async def optimize(self, vectors_scanned_max: int) -> None:
        """Brings the indices up to date, joins small files, drops old versions."""
        async with self._tidying:
            await self._optimize(vectors_scanned_max)

    async def _optimize(self, vectors_scanned_max: int) -> None:
        await self.index_words()
        live = self.layout.live
        if await self.count() > vectors_scanned_max and not await self.indexed(live.name):
            await self.index_vectors(live)
        await self._commit(lambda: self._table.optimize(cleanup_older_than=VERSIONS_KEPT))

    async def _create_index(self, column: str, config: FTS | HnswSq) -> None:
        await self._table.create_index(column, config=config)

    async def indexed(self, column: str) -> bool:
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


async def _layout(table: lancedb.AsyncTable) -> Layout:
    """Marks the vectors of a table that was made before they were marked."""
    found = layout_of(await table.schema())
    if found is None:
        dimensions = (await table.schema()).field(UNMARKED).type.list_size
        column = column_of(LIVE, lance_columns.UNMARKED_EMBEDDER, dimensions)
        await table.alter_columns(cast(Any, {"path": UNMARKED, "rename": column.name, "nullable": True}))
        found = layout_of(await table.schema())
    assert found is not None
    return found


def _changed(name: str) -> Unavailable:
    return Unavailable(
        f"The embedder of the collection {name!r} is being changed.",
        next="Try again in a second.",
        retry_after_s=1.0,
    )
