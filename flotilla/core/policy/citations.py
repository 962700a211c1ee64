"""Ties a reply to the passages it was made from, by quoted words.

A sentence of the reply is supported where it shares a run of words with a passage. The quote is
cut out of the passage, so it stands there word for word whatever the model wrote; a sentence
that shares no long enough run gets no citation. Nothing here trusts the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from flotilla.core.facts import Citation
from flotilla.core.knowledge import Passage

# A run shorter than this is chance: "you can use the" stands in every document of a bank.
RUN_WORDS_MIN = 4
# Words that carry meaning, of a run: fewer, and the run says nothing.
RUN_CONTENT_WORDS_MIN = 2
# For scripts without spaces, where a character counts as a word.
RUN_CHARACTERS_MIN = 8
CITATIONS_MAX = 16
# Where a passage repeats itself (a table, say), the first places of a run of words will do.
PLACES_MAX = 8

# An amount is one word with its sign, currency and percent, so that "€5" never supports "$5".
_AMOUNT = r"(?:(?<!\w)[-−+])?[$€£¥]?\d+(?:[.,]\d+)*%?"
_IDEOGRAPH = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
_LETTERS = rf"(?:(?!{_IDEOGRAPH})[^\W_])+"
_WORD = re.compile(rf"{_AMOUNT}|{_IDEOGRAPH}|{_LETTERS}(?:[_'’]{_LETTERS})*")
_SENTENCE = re.compile(r"\S.*?(?:[.!?](?=\s|$)|[。！？]|(?=\n)|\Z)", re.S)
_COMMON_WORDS = """
a an and are as at be been by can do for from has have how i if in is it its may more my no not of on or our so
that the their them then there these they this to us was we what when where which who will with you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())


class _Word(msgspec.Struct, frozen=True):
    text: str
    start: int
    end: int


class _Run(msgspec.Struct, frozen=True):
    """Words `[reply, reply + length)` of the reply stand at `[passage, passage + length)` of a passage."""

    source: int
    passage: int
    reply: int
    length: int


def find(reply: str, passages: Sequence[Passage]) -> tuple[Citation, ...]:
    """At most one citation for each sentence of `reply`, in the order of the reply."""
    sources = [_words(passage.text) for passage in passages]
    index = _index(sources)
    words = _words(reply)
    found: list[Citation] = []
    for start, end in sentences(reply):
        inside = [i for i, word in enumerate(words) if start <= word.start and word.end <= end]
        if inside and (run := _longest_run(words, inside[0], inside[-1] + 1, sources, index)):
            found.append(_citation(run, words, sources[run.source], passages[run.source]))
    return tuple(citation for citation in found[:CITATIONS_MAX] if holds(citation, passages))


def holds(citation: Citation, passages: Sequence[Passage]) -> bool:
    """Whether the quote stands word for word in the passage that it names."""
    return any(p.id == citation.passage and citation.quote in p.text for p in passages)


def support(reply: str, citations: Sequence[Citation]) -> float:
    """The share of the reply's sentences that a citation supports, 0 to 1."""
    spans = list(sentences(reply))
    held = sum(any(c.start < end and start < c.end for c in citations) for start, end in spans)
    return round(held / len(spans), 3) if spans else 0.0


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each sentence; a line break ends one too."""
    for match in _SENTENCE.finditer(text):
        if _WORD.search(match.group()):
            yield match.span()


def _words(text: str) -> list[_Word]:
    return [_Word(m.group().casefold(), *m.span()) for m in _WORD.finditer(text)]


def _gram(words: Sequence[_Word], at: int) -> tuple[str, ...]:
    return tuple(word.text for word in words[at : at + RUN_WORDS_MIN])


def _index(sources: Sequence[Sequence[_Word]]) -> dict[tuple[str, ...], list[tuple[int, int]]]:
    """Where each run of RUN_WORDS_MIN words begins: (source, word)."""
    index: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for source, words in enumerate(sources):
        for at in range(len(words) - RUN_WORDS_MIN + 1):
            places = index.setdefault(_gram(words, at), [])
            if len(places) < PLACES_MAX:
                places.append((source, at))
    return index


def _longest_run(
    words: Sequence[_Word],
    first: int,
    last: int,
    sources: Sequence[Sequence[_Word]],
    index: dict[tuple[str, ...], list[tuple[int, int]]],
) -> _Run | None:
    """The longest run that begins and ends in words `[first, last)` of the reply."""
    best: _Run | None = None
    for at in range(first, last - RUN_WORDS_MIN + 1):
        for source, place in index.get(_gram(words, at), ()):
            length = _common(words, at, last, sources[source], place)
            if (best is None or length > best.length) and _says_something(words[at : at + length]):
                best = _Run(source, place, at, length)
    return best


def _common(a: Sequence[_Word], at: int, last: int, b: Sequence[_Word], place: int) -> int:
    """How many words from `a[at]` (before `a[last]`) and from `b[place]` are the same."""
    length = 0
    while at + length < last and place + length < len(b) and a[at + length].text == b[place + length].text:
        length += 1
    return length


def _says_something(words: Sequence[_Word]) -> bool:
    content = sum(word.text not in _COMMON for word in words)
    return content >= RUN_CONTENT_WORDS_MIN and sum(len(word.text) for word in words) >= RUN_CHARACTERS_MIN


def _citation(run: _Run, words: Sequence[_Word], source: Sequence[_Word], passage: Passage) -> Citation:
    first, last = source[run.passage], source[run.passage + run.length - 1]
    return Citation(
        document=passage.document,
        passage=passage.id,
        title=passage.title,
        quote=passage.text[first.start : last.end],
        start=words[run.reply].start,
        end=words[run.reply + run.length - 1].end,
    )
