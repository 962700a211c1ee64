"""Gives collections the vectors of another embedder while they are searched and written
(`flotilla/core/policy/reembedding.py` says what comes next)."""

from __future__ import annotations

import structlog
from msgspec.structs import replace

from flotilla.core.errors import Conflict, FlotillaError, Unavailable
from flotilla.core.knowledge import Reembedding
from flotilla.core.policy.reembedding import Shape, Step, next_step
from flotilla.core.ports import Embedder
from flotilla.stores.lance_columns import NEXT, Column, Layout, column_of
from flotilla.stores.lance_shelves import Key, Shelves
from flotilla.stores.lance_table import PassageTable

log = structlog.get_logger()

FILL_PASSAGES = 256  # a commit each
# Rows that were rewritten are scanned for words until the index has them: some 15 µs each, to every search.
TIDY_PASSAGES = 1024
TROUBLES_MAX = 5  # in a row: other writers, another process with the same wish


class Reembedder:
    """The way of one collection to the vectors of `embedder`. Whoever is stopped at any point, or killed, is
    followed by another one that reads in the table how far it was."""

    def __init__(
        self, tenant: str, collection: str, table: PassageTable, embedder: Embedder, vectors_scanned_max: int
    ) -> None:
        self._tenant, self._collection = tenant, collection
        self._table = table
        self._embedder = embedder
        self._vectors_scanned_max = vectors_scanned_max
        self._untidy = 0
        self.progress = Reembedding(
            tenant=tenant, collection=collection, embedder=embedder.name, live=table.layout.live.embedder
        )

    def __repr__(self) -> str:
        return f"<Reembedder {self._tenant}/{self._collection}: {self.progress.done}/{self.progress.total}>"

    async def run(self) -> None:
        """Returns when the collection has switched and the old vectors are gone."""
        await self._note()
        troubles = 0
        while True:
            seen = self._table.layout
            try:
                if await self.step() == "done":
                    return
                troubles = 0
            except FlotillaError as problem:
                troubles += 1
                if troubles == TROUBLES_MAX or not await self._table.changed(seen):
                    self.progress = replace(self.progress, problem=str(problem))
                    raise

    async def step(self) -> Step:
        """One step, and which it was."""
        step = next_step(await self._shape(), self._embedder.name)
        await self._take(step)
        await self._note()
        return step

    async def _take(self, step: Step) -> None:
        layout, table = self._table.layout, self._table
        match step:
            case "drop_left":
                await table.drop_columns(layout.left)
            case "drop_building":
                assert layout.building is not None
                await table.drop_columns([layout.building])
            case "begin":
                await table.add_column(column_of(NEXT, self._embedder.name, self._embedder.dimensions))
                log.info("reembedding_begun", tenant=self._tenant, collection=self._collection)
            case "fill":
                await self._fill(self._column(layout))
            case "index":
                await table.index_vectors(self._column(layout))
            case "switch":
                await self._switch()
            case "done":
                await self._tidy()

    async def _switch(self) -> None:
        """Not before the indices have what was filled in: the first searches are to be as fast as the last."""
        await self._tidy()
        if await self._table.switch():
            log.info("reembedding_switched", tenant=self._tenant, collection=self._collection)

    async def _fill(self, column: Column) -> None:
        rows = await self._table.rows_without(column, FILL_PASSAGES)
        if not len(rows):
            return
        vectors = await self._embedder.embed(rows["words"].to_pylist())
        await self._table.fill(rows, column, vectors)
        self._untidy += len(rows)
        if self._untidy >= TIDY_PASSAGES:
            await self._tidy()

    async def _tidy(self) -> None:
        if not self._untidy:
            return
        try:
            await self._table.optimize(self._vectors_scanned_max)
        except Conflict as problem:
            # Searches stay right, only slower, and the upkeep of whoever writes so much comes to it too.
            log.info("reembedding_untidy", collection=self._collection, reason=problem.detail)
        self._untidy = 0

    # --- how far it is ---

    def _column(self, layout: Layout) -> Column:
        """Where the wanted vectors are, or come."""
        return layout.building or layout.live

    async def _shape(self) -> Shape:
        await self._table.changed(self._table.layout)
        layout = self._table.layout
        column = self._column(layout)
        missing = await self._table.count(without=column)
        enough = await self._table.count() <= self._vectors_scanned_max
        return Shape(
            live=layout.live.embedder,
            building=layout.building.embedder if layout.building else "",
            left=tuple(left.embedder for left in layout.left),
            missing=missing,
            indexed=enough or await self._table.indexed(column.name),
        )

    async def _note(self) -> None:
        layout = self._table.layout
        column, total = self._column(layout), len(await self._table.hashes())
        there = column.embedder == self._embedder.name
        done = total - await self._table.documents_without(column) if there else 0
        self.progress = replace(self.progress, live=layout.live.embedder, done=done, total=total, problem="")


class Reembedders:
    """The way of all collections, one after the other."""

    def __init__(self, shelves: Shelves, embedder: Embedder) -> None:
        self._shelves = shelves
        self._embedder = embedder
        self._begun: dict[Key, Reembedder] = {}

    def progress(self) -> tuple[Reembedding, ...]:
        return tuple(one.progress for one in self._begun.values())

    async def run(self) -> None:
        """Raises `Unavailable`, once the others are done, if some could not be."""
        while keys := await self._unseen():
            problems = [problem for key in keys if (problem := await self._run(key))]
            if problems:
                raise Unavailable("; ".join(problems)[:1000], retry_after_s=5.0)

    async def _unseen(self) -> list[Key]:
        """Those that are created meanwhile, too."""
        return [key for key in await self._shelves.collections() if key not in self._begun]

    async def _run(self, key: Key) -> str:
        """What went wrong; empty if nothing did."""
        try:
            table = await self._shelves.table(*key)
            one = Reembedder(*key, table, self._embedder, self._shelves.vectors_scanned_max)
            self._begun[key] = one
            await one.run()
        except FlotillaError as problem:
            log.warning("reembedding_failed", tenant=key[0], collection=key[1], reason=str(problem))
            return f"{key[0]}/{key[1]}: {problem}"
        return ""
