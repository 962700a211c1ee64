"""The doors of the core: what it needs from the world, and nothing about how.

Every implementation behind a door passes the same contract tests (tests/contracts).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flotilla.core.generation import Generated, Prompt
from flotilla.core.knowledge import Document, Hit, Ingested, SearchMode

Vectors = npt.NDArray[np.float32]


class Model(Protocol):
    """Turns a prompt into text, a piece per engine step."""

    @property
    def name(self) -> str:
        """Name and version, as shown in `reply.completed.model`."""
        ...

    def generate(self, prompt: Prompt) -> AsyncIterator[Generated]:
        """Pieces as they are made, then exactly one `Finished`.

        Closing the iterator cancels the generation in the engine. Raises `Refused` for a prompt
        that can't fit, `Unavailable` if the engine is down.
        """
        ...

    async def ping(self) -> None:
        """Returns once the engine can generate; raises `Unavailable` with the reason otherwise."""
        ...

    async def close(self) -> None: ...


class Embedder(Protocol):
    """Turns text into vectors of unit length."""

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape `(len(texts), dimensions)`, float32, each row of length 1."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


class Knowledge(Protocol):
    """Collections of documents that can be searched. Every call is bound to a tenant."""

    async def upsert(self, tenant: str, collection: str, documents: Sequence[Document]) -> Ingested:
        """Adds or replaces by document id; a document whose content is unchanged costs a hash."""
        ...

    async def remove(self, tenant: str, collection: str, document: str) -> bool:
        """False if it was not there. When this returns, no search finds its text."""
        ...

    async def documents(self, tenant: str, collection: str) -> dict[str, str]:
        """Content hash by document id. Raises `NotFound` for an unknown collection."""
        ...

    async def search(
        self, tenant: str, collection: str, query: str, *, limit: int, mode: SearchMode = "hybrid"
    ) -> tuple[Hit, ...]:
        """At most `limit` hits, best first. Raises `NotFound` for an unknown collection."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...
