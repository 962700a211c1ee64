"""Gate sets and judges: what is read, what is refused, how answers are scored, what passes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from flotilla.core.errors import Refused, TooLarge
from flotilla.core.policy import gate, judges
from flotilla.core.policy.gate import Answered, parse_gate
from flotilla.core.swap_orders import Case, GateSet, Judge

CASES = [{"id": "a", "question": "What is the fee?", "expected": ["$1,000"]}, {"id": "b", "question": "Why?"}]


# -- reading


def test_a_gate_set_is_one_object_or_lines() -> None:
    whole = parse_gate(json.dumps({"name": "bank", "cases": CASES, "score_min": 0.5}, indent=1).encode())
    lines = [json.dumps({"name": "bank", "score_min": 0.5}), "", *map(json.dumps, CASES)]
    assert whole == parse_gate("\n".join(lines).encode())
    assert whole.score_min == 0.5 and whole.cases[0].expected == ("$1,000",)
    assert parse_gate(json.dumps(CASES[0]).encode(), name="mine").name == "mine"
    assert gate.digest(whole) != gate.digest(msgspec.structs.replace(whole, tokens_max=7))


@pytest.mark.parametrize(
    ("body", "field", "detail"),
    [
        (b"", "gate.cases", "0"),
        (b'{"name": "x", "cases": []}', "gate.cases", "0"),
        (b'{"name": "x", "cases": [}', "gate", "malformed"),
        (b'{"name": "x", "cases": 5}', "gate: cases", "array"),
        (b'{"name": "x", "cases": [{"id": "a"}]}', "gate: cases[0]", "question"),
        (b'{"name": "x", "casus": [], "cases": []}', "gate: casus", "casus"),
        (b'{"id": "a", "question": "?"}\n{"id": "b"}', "line 2", "question"),
        (b'{"id": "a", "question": "?"}\n{"id": "b", "question": 7}', "line 2: question", "str"),
        (
            b'{"id": "a", "question": "?"}\n{"id": "b", "question": "?", "expect": []}',
            "line 2: expect",
            "expect",
        ),
        (b'{"id": "a", "question": "?"}\n{"id": "a", "question": "?"}', "gate.cases.1.id", "id"),
        (b'{"id": "a", "question": "?"}\nnot json', "line 2", "Line 2"),
        (b'{"id": "a", "question": " "}', "gate.cases.0.question", "nothing"),
        (b'{"score_min": 3}\n{"id": "a", "question": "?"}', "gate.score_min", "0 to 1"),
        (b'{"judges": [{"name": "mum"}]}\n{"id": "a", "question": "?"}', "gate.judges.0.name", "mum"),
        (b'{"judges": [{"name": 3}]}\n{"id": "a", "question": "?"}', "gate: judges[0].name", "str"),
        (b"[1, 2]", "line 1", "object"),
        (b"\xff\xfe", "line 1", "Line 1"),
    ],
)
def test_what_can_not_be_read_is_named_with_its_line_and_field(body: bytes, field: str, detail: str) -> None:
    with pytest.raises(Refused) as raised:
        parse_gate(body)
    assert raised.value.field == field and detail in raised.value.detail


def test_gate_sets_are_bounded() -> None:
    with pytest.raises(TooLarge):
        parse_gate(b" " * (gate.GATE_BYTES_MAX + 1))
    many = "\n".join(json.dumps({"id": str(n), "question": "?"}) for n in range(501))
    with pytest.raises(Refused) as raised:
        parse_gate(many.encode())
    assert raised.value.field == "gate.cases" and "501" in raised.value.detail


# -- judges


@pytest.mark.parametrize(
    ("expected", "answer", "found"),
    [
        ("$1,000", "It costs 1000 a year.", True),
        ("$1,000", "It costs $1,000.00 a year.", True),
        ("1000", "That is $1,000!", True),
        ("1000 dollars", "That is $1,000!", True),
        ("$95", "95 Dollars per year", True),
        ("$95", "It is €95.", False),
        ("$95", "It is $950.", False),
        ("$95", "It is 9.5 dollars", False),
        ("3.5%", "a fee of 3.50 percent", True),
        ("3.5%", "a fee of 3.5 dollars", False),
        ("3.5", "a fee of 3.5%", False),
        ("-5", "minus: -5 degrees", True),
        ("no annual fee", "There's NO annual, fee.", True),
        ("no annual fee", "annual fee: no", False),
        ("ten working days", "It takes up to ten\nworking days.", True),
        ("1,234,567.80", "about 1234567.8 in all", True),
        ("naïve", "NAÏVE!", True),
        ("", "anything", True),
        ("fee", "", False),
    ],
)
def test_facts_are_found_however_they_are_written(expected: str, answer: str, found: bool) -> None:
    case = Case(id="a", question="?", expected=(expected,))
    assert judges.facts(case, answer, {}) == float(found)


def test_facts_count_by_their_share() -> None:
    case = Case(id="a", question="?", expected=("gold", "silver", "95", "lounge"))
    assert judges.facts(case, "The Gold card costs $95.", {}) == 0.5
    assert judges.facts(Case(id="a", question="?"), "x", {}) == 1.0


CARD = "The Gold Card costs 95 dollars a year. It gives three percent cash back on travel and dining."


@pytest.mark.parametrize(
    ("name", "answer", "arguments", "score"),
    [
        ("contains", "Call us today", {"all": ["call", "TODAY"], "none": ["sorry"]}, 1.0),
        ("contains", "Sorry, call us", {"all": ["call", "today"], "none": ["sorry"]}, 1 / 3),
        ("contains", "x", {}, 1.0),
        ("contains", "abc", {"all": "abc"}, 1.0),
        ("length", "one two three", {"words_max": 3}, 1.0),
        ("length", "one two three four", {"words_max": 3}, 0.0),
        ("length", "", {}, 0.0),
        ("grounded", "The Gold Card costs 95 dollars a year.", {}, 1.0),
        ("grounded", "The Gold Card costs 95 dollars a year. Bananas grow on very tall trees.", {}, 0.5),
        ("grounded", "", {}, 0.0),
    ],
)
def test_the_other_judges(name: str, answer: str, arguments: Mapping[str, Any], score: float) -> None:
    case = Case(id="a", question="?", context=(CARD,))
    assert judges.find(name)(case, answer, arguments) == pytest.approx(score)


def test_without_passages_nothing_is_ungrounded() -> None:
    assert judges.grounded(Case(id="a", question="?"), "x", {}) == 1.0


# -- verdicts

SET = GateSet(
    name="g",
    cases=tuple(Case(id=str(n), question="?", expected=("yes",)) for n in range(4)),
    judges=(Judge(name="facts", weight=3.0), Judge(name="length", arguments={"words_max": 2})),
    score_min=0.5,
)


def answers(*texts: str) -> list[Answered]:
    return [
        Answered(case=str(n), text=text, first_token_ms=10.0 * (n + 1), tokens=5, seconds=0.5)
        for n, text in enumerate(texts)
    ]


def judged(version: str, *texts: str) -> gate.Judged:
    return gate.judged(version, SET, answers(*texts))


def test_figures_of_a_version() -> None:
    found = judged("m@2", "yes", "no", "yes it is so", "yes").figures
    assert found.quality == pytest.approx((1 + 0.25 + 0.75 + 1) / 4) and found.judged == found.replies == 4
    assert (found.first_token_p50, found.first_token_p95) == (20.0, 40.0) and found.tokens_per_s == 10.0
    assert found.quality_deviation == pytest.approx(0.3062, abs=1e-3)


def test_a_good_one_passes() -> None:
    verdict = gate.verdict(SET, judged("m@2", *["yes"] * 4), judged("m@1", *["yes"] * 4))
    assert verdict.passed and verdict.stable is not None and not verdict.notes
    assert gate.verdict(SET, judged("m@2", *["yes"] * 4), None).passed


def test_one_below_the_bar_does_not() -> None:
    verdict = gate.verdict(SET, judged("m@2", *["no"] * 4), None)
    assert verdict.reasons == ("gate: a mean score of 0.25; 0.50 are asked for",)


def test_one_that_is_worse_than_the_stable_version_does_not() -> None:
    verdict = gate.verdict(SET, judged("m@2", "yes", "yes", "yes", "no"), judged("m@1", *["yes"] * 4))
    (reason,) = verdict.reasons
    assert "0.81 against 1.00 of m@1" in reason


def test_errors_fail_the_candidate_and_are_no_measure_of_the_stable_version() -> None:
    broken = [*answers("yes", "yes", "yes"), Answered(case="3", problem="It is gone.")]
    failed = gate.judged("m@2", SET, broken)
    assert gate.verdict(SET, failed, None).reasons == ("gate: 3: It is gone.",)
    assert failed.figures.errors == 1 and failed.figures.replies == 3
    verdict = gate.verdict(SET, judged("m@2", *["yes"] * 4), gate.judged("m@1", SET, broken))
    assert verdict.passed and "not compared" in verdict.notes[0]


def test_a_judge_that_breaks_is_an_error_of_its_answer_and_its_scores_are_bounded() -> None:
    def broken(case: Case, answer: str, arguments: Mapping[str, Any]) -> float:
        if case.id == "2":
            raise KeyError("x")
        return 17.0

    found = gate.judged("m@2", SET, answers(*["yes"] * 4), lambda name: broken)
    assert found.problems == ("2: a judge broke with a KeyError",) and found.figures.quality == 1.0


def test_reasons_are_bounded() -> None:
    many = msgspec.structs.replace(SET, cases=tuple(Case(id=str(n), question="?") for n in range(50)))
    failed = gate.judged("m@2", many, [Answered(case=str(n), problem="gone") for n in range(50)])
    reasons = gate.verdict(many, failed, None).reasons
    assert len(reasons) == gate.REASONS_MAX + 2 and "42 more cases" in reasons[gate.REASONS_MAX]
