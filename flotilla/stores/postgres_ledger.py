"""The ledger of tokens and cost in PostgreSQL, beside the record and under the same rules of who sees what."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import asyncpg
import msgspec

from flotilla.core.charges import By, Charge, Spent
from flotilla.core.limits import LIMITS
from flotilla.stores.postgres_pool import translated


class PostgresLedger:
    """Implements `UsageLedger`. A journal has one, on its connections: `PostgresJournal.ledger`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def charge(self, charges: Sequence[Charge]) -> None:
        if not charges:
            return
        rows = msgspec.json.encode([_row(charge) for charge in charges]).decode()
        tenants = sorted({charge.tenant for charge in charges})
        async with translated():
            await self._pool.execute("select add_charges($1, $2)", tenants, rows)

    async def usage(self, tenant: str, since: date, until: date, by: By) -> list[Spent]:
        async with translated():
            rows = await self._pool.fetch(
                "select * from read_usage($1, $2, $3, $4, $5)", tenant, since, until, by, LIMITS.page_max
            )
        return [Spent(**row) for row in rows]


def _row(charge: Charge) -> dict[str, Any]:
    """By the names of the table's columns."""
    return {
        "tenant": charge.tenant,
        "key": charge.key,
        "at": charge.at,
        "source": charge.source,
        "model": charge.model,
        "prompt_tokens": charge.usage.prompt_tokens,
        "cached_tokens": charge.usage.cached_tokens,
        "completion_tokens": charge.usage.completion_tokens,
        "cost": charge.cost,
        "first_token_ms": charge.first_token_ms,
        "outcome": charge.outcome,
    }
