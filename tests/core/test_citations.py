"""Quotes stand word for word in their passages, whatever the model wrote."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla.core.facts import Citation
from flotilla.core.policy import citations
from tests.build import FEES, passage

WORDS = [
    "the",
    "a",
    "fee",
    "is",
    "card",
    "$1,000.50",
    "3.5%",
    "naïve",
    "日本語",
    "👍",
    "👩\u200d👩\u200d👧",
    "Straße",
    "STRASSE",
    "İ",
    "don’t",
    "don't",
    "_",
    ".",
    "!",
    "\n\n",
    "**",
    "of",
    "to",
]
SENTENCE = st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join)
TEXT = st.one_of(SENTENCE, st.text(max_size=120))


def cited(reply: str, *texts: str) -> tuple[Citation, ...]:
    return citations.find(reply, [passage(text, f"doc#{n}") for n, text in enumerate(texts)])


def check(found: tuple[Citation, ...], reply: str, texts: dict[str, str]) -> None:
    for citation in found:
        assert citation.quote and citation.quote in texts[citation.passage]
        assert 0 <= citation.start < citation.end <= len(reply)
    spans = [(citation.start, citation.end) for citation in found]
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert len(found) <= citations.CITATIONS_MAX
    assert 0.0 <= citations.support(reply, found) <= 1.0


@settings(max_examples=200)
@given(TEXT, st.lists(TEXT, max_size=4))
def test_quotes_are_verbatim_and_spans_in_order_for_any_text(reply: str, texts: list[str]) -> None:
    check(cited(reply, *texts), reply, {f"doc#{n}": text for n, text in enumerate(texts)})


@settings(max_examples=100)
@given(st.lists(TEXT, min_size=1, max_size=4), st.data())
def test_quotes_are_verbatim_where_a_reply_copies_passages(texts: list[str], data: st.DataObject) -> None:
    parts = []
    for text in texts:
        start = data.draw(st.integers(0, len(text)))
        parts.append(text[start : data.draw(st.integers(start, len(text)))])
    reply = ". ".join(parts)
    check(cited(reply, *texts), reply, {f"doc#{n}": text for n, text in enumerate(texts)})


@pytest.mark.parametrize(
    "reply",
    [
        FEES,
        f"**{FEES}**",
        f"Sure! {FEES} Anything else?",
        f"- one\n- {FEES}\n- two",
        FEES.upper(),
        FEES.replace(" and a ", "\nand a "),
        f"👩‍👩‍👧 日本語: {FEES}",
    ],
)
def test_words_of_a_passage_are_cited_whatever_stands_around_them(reply: str) -> None:
    found = cited(reply, FEES)
    assert found and all(citation.quote in FEES for citation in found)


@pytest.mark.parametrize("amount", ["$1,000.50", "3.5%"])
def test_numbers_are_kept_whole(amount: str) -> None:
    text = f"The yearly card fee amounts to {amount} for students and others."
    (citation,) = cited(text, text)
    assert amount in citation.quote


@pytest.mark.parametrize(
    ("reply", "source"),
    [
        ("The withdrawal fee is 3.5 percent.", "The withdrawal fee is 35 percent."),
        ("It costs $1,000.50 a year.", "It costs $1,000.05 a year."),
    ],
)
def test_a_quote_never_holds_another_number(reply: str, source: str) -> None:
    for citation in cited(reply, source):
        said = reply[citation.start : citation.end]
        assert [w for w in said.split() if w[0].isdigit()] == [
            w for w in citation.quote.split() if w[0].isdigit()
        ]


@pytest.mark.parametrize(
    ("reply", "source"),
    [
        ("The annual card fee is €500 for students.", "The annual card fee is $500 for students."),
        ("The savings rate this year is -3 points.", "The savings rate this year is 3 points."),
    ],
)
def test_a_number_with_another_sign_or_currency_is_not_supported(reply: str, source: str) -> None:
    for citation in cited(reply, source):
        said = reply[citation.start : citation.end]
        assert ("€" in said) == ("€" in citation.quote) and "500" not in said and " 3" not in citation.quote


@pytest.mark.parametrize(
    "reply",
    [
        "You can do it if you have the time to be there.",
        "It is what it is, and this is how we do it.",
        "As of the card, then.",
        "",
        "   \n ",
        "👍👍👍",
    ],
)
def test_a_chance_overlap_of_common_words_gives_no_citation(reply: str) -> None:
    source = "You can do it if you have the card. It is what it is, and this is how we do it. As of the end."
    assert cited(reply, source) == ()


def test_a_made_up_quote_is_never_cited() -> None:
    assert cited('Our terms say: "All fees are refunded within nine days."', FEES) == ()


def test_a_quote_is_cited_only_as_far_as_it_is_true() -> None:
    reply = "The Silver card has an annual fee of zero dollars."
    (citation,) = cited(reply, FEES)
    assert citation.quote == "The Silver card has an annual fee of"
    assert reply[citation.start : citation.end] == citation.quote


def test_of_overlapping_passages_the_one_with_the_longest_run_is_cited() -> None:
    reply = "The Silver card has an annual fee of $1,000.50 and a cash withdrawal fee."
    found = cited(reply, "Note: the Silver card has an annual fee.", FEES, FEES[4:])
    assert [citation.passage for citation in found] == ["doc#1"]


def test_a_passage_that_stands_twice_is_cited_once() -> None:
    assert len(cited(FEES, FEES, FEES)) == 1


def test_each_sentence_has_a_citation_of_its_own() -> None:
    reply = "The Silver card has an annual fee. Bananas are yellow. A cash withdrawal fee of 3.5% applies."
    found = cited(reply, FEES)
    assert len(found) == 2 and citations.support(reply, found) == round(2 / 3, 3)


def test_a_forged_citation_does_not_hold() -> None:
    forged = Citation(document="doc", passage="doc#0", quote="no fees at all", start=0, end=5)
    assert not citations.holds(forged, [passage(FEES, "doc#0")])
    assert not citations.holds(forged, [passage("no fees at all", "doc#1")])


def test_japanese_replies_can_be_cited() -> None:
    source = "シルバーカードの年会費は千円です。現金の引き出し手数料は三パーセントです。"
    assert cited("シルバーカードの年会費は千円です。", source)


# -- speed: this runs on the event loop of a host with thousands of conversations


def seconds(reply: str, texts: list[str]) -> float:
    best = 1e9
    for _ in range(3):
        begun = time.process_time()
        cited(reply, *texts)
        best = min(best, time.process_time() - begun)
    return best


def test_a_long_reply_over_long_passages_takes_milliseconds() -> None:
    chance = random.Random(7)
    vocabulary = [f"w{n}" for n in range(300)] + ["the", "of", "a"] * 30
    texts = [" ".join(chance.choice(vocabulary) for _ in range(200)) for _ in range(4)]
    words = " ".join(texts).split()
    reply = ". ".join(" ".join(words[n : n + 20]) for n in range(0, 400, 20))
    assert cited(reply, *texts)
    assert seconds(reply, texts) < 0.020


def test_a_model_that_repeats_itself_over_a_repetitive_table_takes_milliseconds() -> None:
    assert seconds("0.00 fee " * 60, ["0.00 fee " * 100] * 4) < 0.050
