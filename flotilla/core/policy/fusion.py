"""Makes one ranking of several.

The head answers a pointed question: reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009) with
an offset so small that what any search holds for best comes first. The rest gathers what a broad matter
needs: there, documents are lifted by the evidence of their shelf. Documents that stand together
(`cards/gold/1`, `cards/gold/2`) are about one thing, so where much was found, more belongs to it. Where ids
form no shelves all are lifted alike, and nothing changes.

On the rho_bank questions (benchmarks/retrieval.py) the lift is worth more than the fusion. Without the
head, pointed questions suffer: of 200 documents asked for by every other word of one of their sentences,
64 % instead of 86 % had one of the first six hits (BM25 alone: 89 %).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

HEAD = 5  # passages
HEAD_OFFSET = 1
REST_OFFSET = 20
SHELF_DOCUMENTS = 10  # the best of a shelf speak for it, so that a long shelf has no advantage
WIDER_SHELF = 0.5  # what the evidence of the next wider shelf counts, against the narrower one

_SEPARATOR = re.compile(r"[/_.:#-]")


def fuse(rankings: Sequence[Sequence[str]], document_of: Mapping[str, str]) -> tuple[str, ...]:
    """Passage ids, best first, made of rankings of passage ids, best first.

    `document_of` gives the document id of each passage.
    """
    head = _ordered(reciprocal_ranks(rankings, HEAD_OFFSET))[:HEAD]
    scores = reciprocal_ranks(rankings, REST_OFFSET)
    documents: dict[str, float] = {}
    for passage, score in scores.items():
        document = document_of[passage]
        documents[document] = max(score, documents.get(document, 0.0))
    lifts = shelf_lifts(documents)
    rest = _ordered({passage: score + lifts[document_of[passage]] for passage, score in scores.items()})
    return tuple(dict.fromkeys((*head, *rest)))


def reciprocal_ranks(rankings: Sequence[Sequence[str]], offset: int) -> dict[str, float]:
    """By id the sum over all rankings of 1 / (offset + place), places counted from 1."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for place, id in enumerate(ranking, start=1):
            scores[id] = scores.get(id, 0.0) + 1.0 / (offset + place)
    return scores


def shelf_lifts(documents: Mapping[str, float]) -> dict[str, float]:
    """By document the evidence of its shelves, the narrowest in full, each wider one half as much again.

    The evidence of a shelf is the mean score of its best `SHELF_DOCUMENTS`; a missing one counts as zero.
    """
    members: dict[str, list[float]] = {}
    for document, score in documents.items():
        for shelf in shelves(document):
            members.setdefault(shelf, []).append(score)
    evidence = {
        shelf: sum(sorted(scores, reverse=True)[:SHELF_DOCUMENTS]) / SHELF_DOCUMENTS
        for shelf, scores in members.items()
    }
    return {document: _lift(document, members, evidence) for document in documents}


def _lift(document: str, members: Mapping[str, Sequence[float]], evidence: Mapping[str, float]) -> float:
    lift, weight, held = 0.0, 1.0, 0
    for shelf in shelves(document):
        if len(members[shelf]) > held:  # a shelf that holds no more than the narrower one is the same one
            lift += weight * evidence[shelf]
            weight *= WIDER_SHELF
            held = len(members[shelf])
    return lift


@lru_cache(65_536)
def shelves(document: str) -> tuple[str, ...]:
    """The beginnings of the id that end in a separator, narrowest first, and last the shelf of all.

    `cards/gold_2` stands on `cards/gold_`, which stands on `cards/`, which stands on ``.
    """
    ends = (match.end() for match in _SEPARATOR.finditer(document))
    return (*reversed([document[:end] for end in ends]), "")


def _ordered(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda id: (-scores[id], id))
