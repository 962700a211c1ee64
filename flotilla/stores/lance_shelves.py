"""The databases and tables that are open, and the upkeep of their indices in the background."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import lancedb
import structlog

from flotilla.core.errors import FlotillaError
from flotilla.core.ports import Embedder
from flotilla.stores import lance_folders
from flotilla.stores.lance_checks import check_name
from flotilla.stores.lance_errors import translated
from flotilla.stores.lance_table import PassageTable

log = structlog.get_logger()

Key = tuple[str, str]  # tenant, collection


class Shelves:
    """Under `uri` a database per tenant, in it a table per collection."""

    def __init__(self, uri: str, *, vectors_scanned_max: int) -> None:
        self._uri = uri.rstrip("/")
        self.vectors_scanned_max = vectors_scanned_max
        self._databases: dict[str, lancedb.AsyncConnection] = {}
        self._tables: dict[Key, PassageTable] = {}
        # A table is opened once: what this process writes to it and changes of it goes through one object.
        self._opening = asyncio.Lock()
        self._upkeep: dict[Key, asyncio.Task[None]] = {}
        self._stale: set[Key] = set()

    def __repr__(self) -> str:
        return f"<Shelves {self._uri}: {len(self._tables)} open, {len(self._upkeep)} in upkeep>"

    async def ping(self) -> None:
        """Raises `Unavailable` if the store can't be reached."""
        async with translated("ping"):
            await (await self._database("ping")).list_tables(limit=1)

    async def table(self, tenant: str, collection: str, *, create: Embedder | None = None) -> PassageTable:
        """Raises `NotFound` if there is none; with `create` there is one, for that embedder if it is new."""
        check_name("tenant", tenant)
        check_name("collection", collection)
        key = (tenant, collection)
        async with self._opening:
            if key not in self._tables:
                database = await self._database(tenant)
                self._tables[key] = await (
                    PassageTable.create(database, collection, create.name, create.dimensions)
                    if create
                    else PassageTable.open(database, collection)
                )
        return self._tables[key]

    async def collections(self) -> list[Key]:
        """Of all tenants."""
        return await lance_folders.collections(self._uri, self._database)

    async def _database(self, tenant: str) -> lancedb.AsyncConnection:
        if tenant not in self._databases:
            # Zero: every read looks for newer versions, as another process may have removed a document.
            async with translated(tenant):
                self._databases[tenant] = await lancedb.connect_async(
                    f"{self._uri}/{tenant}", read_consistency_interval=timedelta(0)
                )
        return self._databases[tenant]

    # --- upkeep ---

    def tend(self, key: Key) -> None:
        """Brings the indices up to date in the background; searches and writes go on meanwhile."""
        self._stale.add(key)
        if key not in self._upkeep:
            self._upkeep[key] = asyncio.create_task(self._keep_up(key), name=f"upkeep {key}")
            self._upkeep[key].add_done_callback(lambda _: self._upkeep.pop(key))

    async def _keep_up(self, key: Key) -> None:
        try:
            while key in self._stale:
                self._stale.discard(key)
                await self._tables[key].optimize(self.vectors_scanned_max)
        except FlotillaError as problem:
            # Searches stay right, only slower; the next write tries again.
            log.warning("knowledge_upkeep_failed", tenant=key[0], collection=key[1], reason=str(problem))

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
