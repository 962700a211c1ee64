"""Gate sets: read from a file, and turned into a verdict once both versions have answered.

A file is one JSON object (`GateSet`), or JSON lines: a case a line, and on a line of its own what concerns
them all (`{"name": "bank", "judges": […], "score_min": 0.6}`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from flotilla.core.errors import Refused, TooLarge
from flotilla.core.policy import judges
from flotilla.core.swap_orders import Case, Figures, GateSet, Judge, Verdict

GATE_BYTES_MAX = 1024 * 1024
CASES_MAX = 500
JUDGES_MAX = 16
TOKENS_MAX = 4096
REASONS_MAX = 8

_HEAD = frozenset(GateSet.__struct_fields__) - {"cases"}
_OWN_JUDGE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_WHERE = re.compile(r" - at `\$\.?(.*)`$")


# -- reading


def parse_gate(body: bytes, name: str = "gate") -> GateSet:
    """`name` is for JSON lines that give none. Raises `Refused` with the line and the field at fault,
    `TooLarge`."""
    if len(body) > GATE_BYTES_MAX:
        raise TooLarge(f"The gate set has {len(body)} bytes; {GATE_BYTES_MAX} are the most.", field="gate")
    gate = _parse_object(body) if _is_object(body) else _parse_lines(body, name)
    check_gate(gate)
    return gate


def _is_object(body: bytes) -> bool:
    """Whether it is one JSON object with cases: a single line may also be the only case."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        # Broken, or many: many if the first line stands by itself.
        first = body.lstrip().partition(b"\n")[0]
        return not _reads(first) and b'"cases"' in body
    return isinstance(found, dict) and "cases" in found


def _reads(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except msgspec.DecodeError:
        return False
    return True


def _parse_object(body: bytes) -> GateSet:
    try:
        return _decode(body, GateSet)
    except msgspec.DecodeError as error:
        raise _unreadable(error, "The gate set", "gate") from None


def _parse_lines(body: bytes, name: str) -> GateSet:
    cases: list[Case] = []
    head: dict[str, Any] = {"name": name}
    for number, line in enumerate(body.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = msgspec.json.decode(line)
            if isinstance(found, dict) and found.keys() <= _HEAD:
                head |= found
            else:
                cases.append(_decode(line, Case))
        except msgspec.DecodeError as error:
            raise _unreadable(error, f"Line {number} of the gate set", f"line {number}") from None
    try:
        return msgspec.convert({**head, "cases": cases}, GateSet)
    except msgspec.ValidationError as error:
        raise _unreadable(error, "The gate set", "gate") from None


def _decode(body: bytes, type: Any) -> Any:
    """As msgspec does, but an unknown field is an error: it is a misspelt one more often than not."""
    found = msgspec.json.decode(body, type=type)
    _check_fields(msgspec.json.decode(body), type, "$")
    return found


def _check_fields(raw: Any, type: Any, path: str) -> None:
    unknown = sorted(set(raw) - set(type.__struct_fields__))
    if unknown:
        raise msgspec.ValidationError(f"There is no field {unknown[0]!r} - at `{path}.{unknown[0]}`")
    for name, inner in (("cases", Case), ("judges", Judge)):
        for n, value in enumerate(raw.get(name, ()) if type is GateSet else ()):
            _check_fields(value, inner, f"{path}.{name}[{n}]")


def _unreadable(error: msgspec.DecodeError, what: str, where: str) -> Refused:
    text = str(error)
    found = _WHERE.search(text)
    field = f"{where}: {found[1]}" if found and found[1] else where
    return Refused(
        f"{what} can't be read: {_WHERE.sub('', text)}.",
        field=field,
        next=f"Mend {field}, and send it again.",
    )


def check_gate(gate: GateSet, field: str = "gate") -> None:
    """Raises `Refused` with the field at fault."""
    if not 0 < len(gate.cases) <= CASES_MAX:
        raise Refused(
            f"A gate set has 1 to {CASES_MAX} cases, not {len(gate.cases)}.", field=f"{field}.cases"
        )
    seen: set[str] = set()
    for n, case in enumerate(gate.cases):
        if not case.id or case.id in seen:
            raise Refused("Each case needs an id of its own.", field=f"{field}.cases.{n}.id")
        if not case.question.strip():
            raise Refused(f"Case {case.id!r} asks nothing.", field=f"{field}.cases.{n}.question")
        seen.add(case.id)
    if not 0 < len(gate.judges) <= JUDGES_MAX:
        raise Refused(f"A gate set has 1 to {JUDGES_MAX} judges.", field=f"{field}.judges")
    for n, judge in enumerate(gate.judges):
        _check_judge(judge, f"{field}.judges.{n}")
    for name, value in (("score_min", gate.score_min), ("worse_max", gate.worse_max)):
        if not 0.0 <= value <= 1.0:
            raise Refused(f"`{name}` is 0 to 1.", field=f"{field}.{name}")
    if not 0 < gate.tokens_max <= TOKENS_MAX:
        raise Refused(f"`tokens_max` is 1 to {TOKENS_MAX}.", field=f"{field}.tokens_max")


def _check_judge(judge: Judge, field: str) -> None:
    if not 0.0 < judge.weight < math.inf:
        raise Refused("A judge's weight is more than 0.", field=f"{field}.weight")
    if judge.name not in judges.JUDGES and not _OWN_JUDGE.fullmatch(judge.name):
        raise Refused(
            f"There is no judge {judge.name!r}.",
            field=f"{field}.name",
            next=f"Known: {', '.join(judges.JUDGES)}; or MODULE:FUNCTION of your own.",
        )


def digest(gate: GateSet) -> str:
    """Two gate sets with the same one ask and judge the same."""
    return blake2b(msgspec.json.encode(gate, order="deterministic"), digest_size=16).hexdigest()


# -- judging


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What a version said to a case; `problem` says why it said nothing. `seconds` is how long `tokens` took."""

    case: str
    text: str = ""
    first_token_ms: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    problem: str = ""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A version's answers to a gate set: the figures, and what went wrong, in words."""

    figures: Figures
    problems: tuple[str, ...] = ()


def score(case: Case, answer: str, gate: GateSet, find: Callable[[str], judges.JudgeOf]) -> float:
    """The judges' mean by weight, 0 to 1."""
    weights = sum(judge.weight for judge in gate.judges)
    found = (
        judge.weight * min(1.0, max(0.0, float(find(judge.name)(case, answer, judge.arguments))))
        for judge in gate.judges
    )
    return sum(found) / weights


def judged(
    version: str,
    gate: GateSet,
    answers: Sequence[Answered],
    find: Callable[[str], judges.JudgeOf] = judges.find,
) -> Judged:
    """Scores what was answered. A judge that breaks has found an error in the answer."""
    by_id: Mapping[str, Case] = {case.id: case for case in gate.cases}
    scores: list[float] = []
    problems = [f"{answer.case}: {answer.problem}" for answer in answers if answer.problem]
    whole = [answer for answer in answers if not answer.problem]
    for answer in whole:
        try:
            scores.append(score(by_id[answer.case], answer.text, gate, find))
        except Exception as error:  # an operator's own code
            problems.append(f"{answer.case}: a judge broke with a {type(error).__name__}")
    return Judged(figures=_figures(version, whole, scores, len(problems)), problems=tuple(problems))


def _figures(version: str, answers: Sequence[Answered], scores: Sequence[float], errors: int) -> Figures:
    mean = sum(scores) / len(scores) if scores else 0.0
    spread = sum((score - mean) ** 2 for score in scores) / len(scores) if scores else 0.0
    times = sorted(answer.first_token_ms for answer in answers)
    seconds = sum(answer.seconds for answer in answers)
    return Figures(
        version=version,
        replies=len(answers),
        errors=errors,
        first_token_p50=_quantile(times, 0.5),
        first_token_p95=_quantile(times, 0.95),
        first_token_p99=_quantile(times, 0.99),
        tokens_per_s=sum(answer.tokens for answer in answers) / seconds if seconds > 0 else 0.0,
        judged=len(scores),
        quality=mean,
        quality_deviation=math.sqrt(spread),
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def verdict(gate: GateSet, candidate: Judged, stable: Judged | None) -> Verdict:
    """Passed with a mean of `score_min` or more, no more than `worse_max` below the stable version's, and
    without errors. A stable version that could not answer is no measure, and the verdict says so."""
    reasons = [f"gate: {problem}" for problem in candidate.problems[:REASONS_MAX]]
    if more := candidate.problems[REASONS_MAX:]:
        reasons.append(f"gate: {len(more)} more cases failed")
    quality, notes = candidate.figures.quality, list[str]()
    if quality < gate.score_min:
        reasons.append(f"gate: a mean score of {quality:.2f}; {gate.score_min:.2f} are asked for")
    if stable is not None and stable.problems:
        notes.append(f"{stable.figures.version} failed {len(stable.problems)} cases: not compared with it.")
    elif stable is not None and stable.figures.quality - quality > gate.worse_max:
        reasons.append(
            f"gate: a mean score of {quality:.2f} against {stable.figures.quality:.2f} of "
            f"{stable.figures.version}; {gate.worse_max:.2f} less may be"
        )
    return Verdict(
        candidate=candidate.figures,
        stable=stable.figures if stable else None,
        reasons=tuple(reasons),
        notes=tuple(notes),
    )
