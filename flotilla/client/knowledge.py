"""What the agents may look up: documents in, passages out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from flotilla.client.calls import Calls
from flotilla.core.knowledge import Document, Hit, Ingested, SearchMode


class Knowledge:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def search(
        self, collection: str, query: str, *, limit: int = 10, mode: SearchMode = "hybrid"
    ) -> list[Hit]:
        """The best passages first."""
        body = {"query": query, "limit": limit, "mode": mode}
        answer = await self._calls.call("POST", f"{_path(collection)}/search", body, again=True)
        return msgspec.convert(answer["hits"], list[Hit])

    async def add(self, collection: str, documents: Sequence[Document]) -> Ingested:
        """Adds documents, or replaces those of the same id; what is unchanged costs nothing."""
        body = {"documents": documents}
        answer = await self._calls.call("POST", f"{_path(collection)}/documents", body, again=True)
        return msgspec.convert(answer, Ingested)

    async def remove(self, collection: str, document: str) -> None:
        """When this returns no search finds it any more. Raises `NotFound`."""
        await self._calls.call(
            "DELETE", f"{_path(collection)}/documents/{quote(document, safe='')}", again=False
        )

    async def documents(self, collection: str) -> dict[str, str]:
        """The content's hash by document id."""
        return (await self._calls.call("GET", f"{_path(collection)}/documents"))["documents"]

    async def embedder(self) -> dict[str, Any]:
        """Which embedder the collections have, and how far they are on their way to another."""
        return await self._calls.call("GET", "/v1/knowledge/embedder")

    async def reembed(self, version: dict[str, Any]) -> dict[str, Any]:
        """Has all documents embedded anew by `version`, while they are searched; as `embedder`."""
        return await self._calls.call("POST", "/v1/knowledge/embedder", version)


def _path(collection: str) -> str:
    return f"/v1/knowledge/{quote(collection, safe='')}"
