"""From what the searches of a table found to hits in their order, and the second look at the best of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

import structlog
from msgspec.structs import replace

from flotilla.core.errors import FlotillaError, Unavailable
from flotilla.core.knowledge import Hit, SearchMode
from flotilla.core.policy.breaker import Breaker
from flotilla.core.policy.fusion import fuse
from flotilla.core.ports import Reranker, Vectors
from flotilla.stores.lance_columns import words
from flotilla.stores.lance_table import Found

log = structlog.get_logger()

RERANKED_MAX = 30  # of a search, the best by fusion: what is reordered has to be read word by word
RERANK_TIMEOUT_S = 0.5


def hits_of(mode: SearchMode, found: Sequence[Found], query: Vectors, limit: int) -> tuple[Hit, ...]:
    """The first `limit` hits of what each kind of search found."""
    at = {id: (one, place) for one in found for place, id in enumerate(one.ids)}

    def hit(id: str, score: float) -> Hit:
        one, place = at[id]
        cosine = float(one.vectors[place] @ query)
        return Hit(passage=one.passage(place), score=score, similarity=min(max(cosine, 0.0), 1.0))

    if mode == "hybrid":
        documents = {id: one.documents[place] for id, (one, place) in at.items()}
        fused = fuse([one.ids for one in found], documents)
        return tuple(hit(id, 1.0 / place) for place, id in enumerate(fused[:limit], start=1))
    (only,) = found
    hits = (hit(id, score) for id, score in zip(only.ids[:limit], only.scores, strict=False))
    return tuple(hits)


class SecondLook:
    """Puts the best hits of a hybrid search to a reranker. If that fails or takes too long the hits stay in
    the order of the first look; `skipped` counts how often. One that keeps failing isn't asked for a while."""

    def __init__(self, reranker: Reranker, *, timeout_s: float = RERANK_TIMEOUT_S) -> None:
        self._reranker = reranker
        self._timeout_s = timeout_s
        self._breaker = Breaker(reranker.name)
        self.skipped = 0

    def __repr__(self) -> str:
        return f"<SecondLook {self._reranker.name}: {self.skipped} skipped, {self._breaker!r}>"

    async def order(self, query: str, hits: tuple[Hit, ...]) -> tuple[Hit, ...]:
        """The first `RERANKED_MAX` in their new order, the others behind them; scores are 1 / place."""
        best, others = hits[:RERANKED_MAX], hits[RERANKED_MAX:]
        try:
            scores = await self._scores(query, [words(hit.passage) for hit in best])
        except FlotillaError as problem:
            self.skipped += 1
            log.warning("rerank_skipped", reranker=self._reranker.name, reason=problem.detail)
            return hits
        order = sorted(range(len(best)), key=lambda n: -scores[n])  # stable: equals stay as they were
        ordered = (*(best[n] for n in order), *others)
        return tuple(replace(hit, score=1.0 / place) for place, hit in enumerate(ordered, start=1))

    async def _scores(self, query: str, texts: Sequence[str]) -> list[float]:
        self._breaker.admit(time.monotonic())
        try:
            async with asyncio.timeout(self._timeout_s):
                scores = await self._reranker.rank(query, texts)
            if len(scores) != len(texts) or not all(map(math.isfinite, scores)):
                raise Unavailable("It answers with what can't be scores.")
        except (TimeoutError, FlotillaError) as problem:
            self._breaker.note(time.monotonic(), False)
            if isinstance(problem, FlotillaError):
                raise
            raise Unavailable(f"No scores in {self._timeout_s:g} s.") from problem
        self._breaker.note(time.monotonic(), True)
        return scores
