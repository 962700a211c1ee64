"""API keys in PostgreSQL, beside the record and under the same rules of who sees what."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from flotilla.core.api_keys import IssuedKey, KeyLimits, too_many_keys
from flotilla.core.limits import LIMITS
from flotilla.stores.postgres_pool import Pool, Record, translated

_WRITTEN = ("id", "tenant", "name", "scopes", "limits", "shown", "created", "created_by", "expires")


class PostgresApiKeys:
    """Implements `KeyStore`. A journal has one, on its connections: `PostgresJournal.api_keys`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(self, key: IssuedKey) -> None:
        row = msgspec.json.encode({name: getattr(key, name) for name in _WRITTEN}).decode()
        async with translated():
            done = await self._pool.fetchval(
                "select put_api_key($1, $2, $3)", row, key.digest, LIMITS.keys_per_tenant_max
            )
        if not done:
            raise too_many_keys()

    async def find(self, id: str) -> IssuedKey | None:
        return await self._one("select * from find_api_key($1)", id)

    async def read(self, tenant: str, id: str) -> IssuedKey | None:
        return await self._one("select * from read_api_key($1, $2)", tenant, id)

    async def list(self, tenant: str, *, before: str | None = None, limit: int = 50) -> list[IssuedKey]:
        async with translated():
            rows = await self._pool.fetch("select * from list_api_keys($1, $2, $3)", tenant, before, limit)
        return [_key(row) for row in rows]

    async def rotate(
        self, tenant: str, id: str, *, digest: bytes, shown: str, at: datetime, until: datetime
    ) -> IssuedKey | None:
        arguments = (tenant, id, digest, shown, at, until)
        return await self._one("select * from rotate_api_key($1, $2, $3, $4, $5, $6)", *arguments)

    async def revoke(self, tenant: str, id: str, at: datetime) -> IssuedKey | None:
        return await self._one("select * from revoke_api_key($1, $2, $3)", tenant, id, at)

    async def touch(self, used: Iterable[tuple[str, str]], at: datetime) -> None:
        pairs = sorted(set(used))
        if not pairs:
            return
        tenants, ids = zip(*pairs, strict=True)
        async with translated():
            await self._pool.execute("select touch_api_keys($1, $2, $3)", sorted(set(tenants)), ids, at)

    async def _one(self, statement: str, *arguments: Any) -> IssuedKey | None:
        async with translated():
            row = await self._pool.fetchrow(statement, *arguments)
        return _key(row) if row is not None else None


def _key(row: Record) -> IssuedKey:
    fields: dict[str, Any] = dict(row)
    fields["scopes"] = tuple(fields["scopes"])
    fields["limits"] = msgspec.json.decode(fields["limits"], type=KeyLimits)
    return IssuedKey(**fields)
