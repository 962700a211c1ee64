"""Cuts a document into passages.

A passage is a verbatim stretch of the document, so that a citation can quote it. Cuts fall at the strongest
boundary that keeps passages within the limit: headings first, then blank lines, lines, sentences, words. What
is cut apart at one strength is filled up again with its neighbours, so passages are as long as they may be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from flotilla.core.knowledge import Document, Passage

PASSAGE_CHARS_MAX = 800  # MiniLM reads 256 tokens; English banking text has 4 to 5 characters a token

# Each matches where a new piece may begin, from the strongest boundary to the weakest.
_BOUNDARIES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?m)^(?=#{1,6}\s)",  # a heading
        r"\n\s*\n\s*",  # a blank line
        r"\n\s*",  # a line
        r"(?<=[.!?])[\"')\]]*\s+",  # a sentence
        r"\s+",  # a word
    )
)

Span = tuple[int, int]


def chunk(document: Document, *, chars_max: int = PASSAGE_CHARS_MAX) -> tuple[Passage, ...]:
    """The passages of `document` in order, each at most `chars_max` characters.

    They don't overlap, and all of the text but white space is in one of them.
    """
    assert chars_max > 0
    spans = _split(document.text, (0, len(document.text)), 0, chars_max)
    texts = (document.text[start:end].strip() for start, end in spans)
    return tuple(
        Passage(id=f"{document.id}#{n}", document=document.id, title=document.title, text=text)
        for n, text in enumerate(text for text in texts if text)
    )


def _split(text: str, span: Span, strength: int, chars_max: int) -> list[Span]:
    start, end = span
    if end - start <= chars_max:
        return [span]
    if strength == len(_BOUNDARIES):
        return [(at, min(at + chars_max, end)) for at in range(start, end, chars_max)]
    parts = _cut(text, span, _BOUNDARIES[strength])
    return list(
        _fill([piece for part in parts for piece in _split(text, part, strength + 1, chars_max)], chars_max)
    )


def _cut(text: str, span: Span, boundary: re.Pattern[str]) -> list[Span]:
    start, end = span
    starts = [
        start,
        *(at for at in (m.end() for m in boundary.finditer(text, start, end)) if start < at < end),
    ]
    return list(zip(starts, [*starts[1:], end], strict=True))


def _fill(pieces: Sequence[Span], chars_max: int) -> Iterator[Span]:
    """Joins neighbours for as long as they fit together."""
    start, end = pieces[0]
    for piece_start, piece_end in pieces[1:]:
        if piece_end - start > chars_max:
            yield start, end
            start = piece_start
        end = piece_end
    yield start, end
