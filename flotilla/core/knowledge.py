"""What the fleet knows: documents, the passages they are cut into, and what a search finds."""

from __future__ import annotations

from typing import Literal

import msgspec

SearchMode = Literal["hybrid", "bm25", "vector"]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    title: str
    text: str


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a document, small enough to embed whole. `id` is `DOCUMENT#N`."""

    id: str
    document: str
    title: str
    text: str


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that a search found.

    `score` orders the hits of one search (its scale depends on the mode); `similarity` is the
    cosine between query and passage, 0 to 1, comparable across searches.
    """

    passage: Passage
    score: float
    similarity: float


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """What an upsert did: counts of documents, and of passages written."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    passages: int = 0


class Reembedding(msgspec.Struct, frozen=True, kw_only=True):
    """How far a collection is on its way to another embedder: `done` of `total` documents have its vectors. It
    is searched by those of `live` until all have; then `live` is `embedder`. `problem` says why it stands
    still."""

    tenant: str
    collection: str
    embedder: str
    live: str
    done: int = 0
    total: int = 0
    problem: str = ""

    @property
    def switched(self) -> bool:
        return self.live == self.embedder
