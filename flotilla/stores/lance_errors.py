"""LanceDB's errors in our words."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from flotilla.core.errors import Conflict, FlotillaError, NotFound, Unavailable


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
