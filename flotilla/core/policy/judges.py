"""Judges of answers, by name: pure functions of a case and an answer to a score, 0 to 1.

A score is of use for comparing two versions on the same questions, and for little else: "facts" finds words,
not meaning, and "grounded" knows nothing of what is true, only of what stands in the passages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flotilla.core.errors import Refused
from flotilla.core.knowledge import Passage
from flotilla.core.policy import citations
from flotilla.core.swap_orders import Case

JudgeOf = Callable[[Case, str, Mapping[str, Any]], float]
"""Of a case, an answer and the judge's arguments."""

Token = tuple[str, str]
"""A word, or a number with its unit."""

_CURRENCIES = "$€£¥"
_TOKEN = re.compile(
    rf"(?P<sign>(?<!\w)[-−])?(?P<unit>[{_CURRENCIES}])?\s?(?P<number>\d+(?:,\d{{3}})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"\s?(?P<percent>%|percent\b|per cent\b)?"
    r"|(?P<word>[^\W_]+)",
    re.IGNORECASE,
)


def facts(case: Case, answer: str, arguments: Mapping[str, Any]) -> float:
    """The share of the expected facts that stand in the answer, word for word but for case, punctuation and
    the way numbers are written: "$1,000.00" is "1000 dollars" and "3.5 %" is "3.5 percent", but "€5" is not
    "$5". 1 if nothing is expected."""
    said = list(_tokens(answer))
    found = [_stands_in(list(_tokens(fact)), said) for fact in case.expected]
    return sum(found) / len(found) if found else 1.0


def contains(case: Case, answer: str, arguments: Mapping[str, Any]) -> float:
    """`all`: texts that have to be in the answer, `none`: texts that may not; the share that is as it
    should be. Case doesn't matter."""
    said = answer.casefold()
    right = [text.casefold() in said for text in _texts(arguments, "all")]
    right += [text.casefold() not in said for text in _texts(arguments, "none")]
    return sum(right) / len(right) if right else 1.0


def grounded(case: Case, answer: str, arguments: Mapping[str, Any]) -> float:
    """The share of the answer's sentences that share a run of words with a passage of the case: what could
    be cited. 1 for a case without passages, 0 for an answer without words."""
    if not case.context:
        return 1.0
    passages = [Passage(id=str(n), document=str(n), title="", text=t) for n, t in enumerate(case.context)]
    return citations.support(answer, citations.find(answer, passages))


def length(case: Case, answer: str, arguments: Mapping[str, Any]) -> float:
    """1 for an answer of `words_min` (1) to `words_max` (100) words, else 0."""
    words = len(answer.split())
    return float(int(arguments.get("words_min", 1)) <= words <= int(arguments.get("words_max", 100)))


JUDGES: dict[str, JudgeOf] = {"facts": facts, "contains": contains, "grounded": grounded, "length": length}


def find(name: str) -> JudgeOf:
    """Raises `Refused` for a name that is none of these."""
    if judge := JUDGES.get(name):
        return judge
    raise Refused(f"There is no judge {name!r}.", field="judges", next=f"Known: {', '.join(JUDGES)}.")


def _texts(arguments: Mapping[str, Any], name: str) -> list[str]:
    value = arguments.get(name, ())
    return [value] if isinstance(value, str) else [str(text) for text in value]


# -- words and numbers


def _tokens(text: str) -> Iterator[Token]:
    """Names of currencies behind a number become its sign, so that "95 dollars" is "$95"."""
    held: Token | None = None
    for match in _TOKEN.finditer(text):
        token = _token(match)
        if held and not held[1] and (sign := _CURRENCY_NAMES.get(token[0])):
            yield (held[0], sign)
            held = None
            continue
        if held:
            yield held
        held = token
    if held:
        yield held


_CURRENCY_NAMES = {
    name: sign
    for sign, names in {
        "$": "dollar dollars usd",
        "€": "euro euros eur",
        "£": "pounds gbp",
        "¥": "yen",
    }.items()
    for name in names.split()
}


def _token(match: re.Match[str]) -> Token:
    if word := match["word"]:
        return word.casefold(), ""
    number = match["number"].replace(",", "")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return ("-" if match["sign"] else "") + number, "%" if match["percent"] else match["unit"] or ""


def _stands_in(fact: Sequence[Token], said: Sequence[Token]) -> bool:
    if not fact:
        return True
    last = len(said) - len(fact)
    return any(all(_same(a, said[at + n]) for n, a in enumerate(fact)) for at in range(last + 1))


def _same(expected: Token, said: Token) -> bool:
    """A currency may be left out on one side; a percent sign may not."""
    if expected[0] != said[0]:
        return False
    units = {expected[1], said[1]}
    return len(units) == 1 or ("" in units and "%" not in units)
