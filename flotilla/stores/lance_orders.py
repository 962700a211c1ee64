"""Which embedder the collections are to have, and where each that was ever wanted is to be found: beside the
collections, so that whoever opens them can embed a question for them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import lancedb
import msgspec
import pyarrow as pa

from flotilla.core.errors import Conflict, NotFound
from flotilla.core.versions import FLEET, Version
from flotilla.stores.lance_errors import translated

TABLE = "embedders"
SCHEMA: Any = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"}),
        pa.field("version", pa.string(), nullable=False),
        pa.field("revision", pa.int64(), nullable=False),
    ]
)


class LanceOrders:
    """A table of the tenant `_fleet`, whose name no customer can have."""

    def __init__(self, uri: str) -> None:
        self._uri = f"{uri.rstrip('/')}/{FLEET}"

    async def want(self, version: Version) -> None:
        """It is what is wanted from now on. Raises `Conflict` if that id stands for something else."""
        known = await self._rows()
        for row in known:
            if row["id"] == version.id and _version(row) != version:
                raise Conflict(
                    f"{version.id} is another embedder.",
                    field="version",
                    next="A version never changes: give it another name.",
                )
        revision = 1 + max((row["revision"] for row in known), default=0)
        row = {"id": version.id, "version": msgspec.json.encode(version).decode(), "revision": revision}
        async with translated(TABLE):
            table = await (await self._database()).create_table(TABLE, schema=SCHEMA, exist_ok=True)
            merge: Any = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            await merge.execute(pa.table({name: [row[name]] for name in SCHEMA.names}, schema=SCHEMA))

    async def wanted(self) -> Version | None:
        """The latest; None if there never was an order."""
        rows = await self._rows()
        return _version(max(rows, key=lambda row: row["revision"])) if rows else None

    async def find(self, id: str) -> Version | None:
        return next((_version(row) for row in await self._rows() if row["id"] == id), None)

    async def _rows(self) -> list[dict[str, Any]]:
        try:
            async with translated(TABLE):
                table = await (await self._database()).open_table(TABLE)
                return (await table.query().to_arrow()).to_pylist()
        except NotFound:
            return []

    async def _database(self) -> lancedb.AsyncConnection:
        return await lancedb.connect_async(self._uri, read_consistency_interval=timedelta(0))


def _version(row: dict[str, Any]) -> Version:
    return msgspec.json.decode(row["version"], type=Version)
