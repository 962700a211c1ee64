"""Passages cover a document, word for word, within the limit."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from flotilla.core.knowledge import Document
from flotilla.core.policy.chunking import PASSAGE_CHARS_MAX, chunk

MARKDOWN = st.lists(
    st.sampled_from(
        [
            "# Cards\n",
            "## Fees\n\n",
            "A fee is due. ",
            "Is it? Yes! ",
            "- one\n- two\n",
            "\n\n",
            "word ",
            "x" * 50,
            " ",
            "é😀",
        ]
    ),
    max_size=80,
).map("".join)
TEXTS = st.text(max_size=400) | MARKDOWN


def of(text: str) -> Document:
    return Document(id="doc", title="Title", text=text)


@given(TEXTS, st.integers(1, 120))
def test_passages_are_verbatim_in_order_and_cover_all_text(text: str, chars_max: int) -> None:
    passages = chunk(of(text), chars_max=chars_max)
    at = 0
    for passage in passages:
        start = text.index(passage.text, at)
        assert not text[at:start].strip()
        at = start + len(passage.text)
    assert not text[at:].strip()


@given(TEXTS, st.integers(1, 120))
def test_passages_are_bounded_and_numbered(text: str, chars_max: int) -> None:
    passages = chunk(of(text), chars_max=chars_max)
    assert all(0 < len(passage.text) <= chars_max for passage in passages)
    assert [passage.id for passage in passages] == [f"doc#{n}" for n in range(len(passages))]
    assert {(passage.document, passage.title) for passage in passages} <= {("doc", "Title")}


@given(TEXTS)
def test_a_document_within_the_limit_is_one_passage(text: str) -> None:
    passages = chunk(of(text), chars_max=max(1, len(text)))
    assert [passage.text for passage in passages] == ([text.strip()] if text.strip() else [])


def test_a_long_document_is_cut_at_its_headings() -> None:
    sections = [f"## Section {n}\n\n{'Money. ' * 80}".strip() for n in range(4)]
    passages = chunk(of("\n\n".join(sections)))
    assert [passage.text for passage in passages] == sections


def test_a_hash_inside_a_line_is_no_heading() -> None:
    text = "Call us about case #12 today. " * 40
    assert all(not passage.text.startswith("#") for passage in chunk(of(text)))


def test_sentences_stay_whole_where_they_fit() -> None:
    text = " ".join(f"This is sentence number {n}, and it ends here." for n in range(200))
    passages = chunk(of(text))
    assert all(re.fullmatch(r"This is .* here\.", passage.text) for passage in passages)
    assert all(len(passage.text) > PASSAGE_CHARS_MAX * 0.8 for passage in passages[:-1])


def test_a_word_longer_than_the_limit_is_cut_anyway() -> None:
    assert "".join(passage.text for passage in chunk(of("x" * 2000), chars_max=300)) == "x" * 2000
