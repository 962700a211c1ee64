"""Which collections there are: tenants are folders, or prefixes of an object store; collections are tables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import lancedb
import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from flotilla.core.errors import Unavailable
from flotilla.stores.lance_checks import NAME
from flotilla.stores.lance_errors import translated

TABLES_PAGE = 500


async def collections(
    uri: str, open_database: Callable[[str], Awaitable[lancedb.AsyncConnection]]
) -> list[tuple[str, str]]:
    """Every tenant with each of its collections."""
    found: list[tuple[str, str]] = []
    for tenant in await tenants(uri):
        database = await open_database(tenant)
        async with translated(tenant):
            names = await _tables(database)
        found += [(tenant, name) for name in names if NAME.fullmatch(name)]
    return found


async def tenants(uri: str) -> list[str]:
    """Raises `Unavailable` if the store can't be read. Folders of other names aren't tenants'."""
    try:
        if (store := _store(uri)) is None:
            return []
        listed: Any = await obstore.list_with_delimiter_async(store)
    except (BaseError, OSError) as problem:
        raise Unavailable(
            f"The knowledge store can't be listed: {str(problem)[:200]}", retry_after_s=5.0
        ) from problem
    names = [prefix.rstrip("/").rpartition("/")[2] for prefix in listed["common_prefixes"]]
    return sorted(name for name in names if NAME.fullmatch(name))


def _store(uri: str) -> Any:
    """None for a folder that isn't there yet."""
    if "://" not in uri:
        folder = Path(uri).absolute()
        return from_url(folder.as_uri()) if folder.is_dir() else None
    return from_url(uri)


async def _tables(database: lancedb.AsyncConnection) -> list[str]:
    names: list[str] = []
    page = await database.list_tables(limit=TABLES_PAGE)
    names += page.tables
    while page.page_token:
        page = await database.list_tables(page_token=page.page_token, limit=TABLES_PAGE)
        names += page.tables
    return names
