"""A gate set put to versions that have replicas, outside of a swap: nothing is changed, nothing recorded."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from actors.serving.swap_evaluating import Judges, prompt_of
from actors.serving.swap_needs import SwapNeeds
from flotilla.core.errors import DeadlinePassed, FlotillaError, NotFound
from flotilla.core.policy import gate as gates
from flotilla.core.policy.retry import passes
from flotilla.core.swap_orders import Case, GateSet

AT_ONCE_MAX = 8
PATIENCE_S, RETRY_S = 10.0, 0.25  # of a case
TIME_MAX_S = 240.0  # below that of a client at the command line


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A version at a gate set, case by case."""

    version: str
    judged: gates.Judged
    answers: list[dict[str, Any]]


async def evaluate(needs: SwapNeeds, gate: GateSet, versions: list[str]) -> list[Outcome]:
    """Of each version, one after the other. Raises `Refused` for a judge that can't be had,
    `DeadlinePassed`."""
    judges = Judges(needs.judges)
    for judge in gate.judges:
        judges.find(judge.name)
    try:
        async with asyncio.timeout(TIME_MAX_S):
            return [await _evaluate(needs, gate, version, judges) for version in versions]
    except TimeoutError:
        raise DeadlinePassed(
            f"The {len(gate.cases)} cases were not answered within {TIME_MAX_S:g} s.",
            field="gate",
            next="Give fewer cases, or begin a swap with this gate: it has the time.",
        ) from None


async def _evaluate(needs: SwapNeeds, gate: GateSet, version: str, judges: Judges) -> Outcome:
    room = asyncio.Semaphore(AT_ONCE_MAX)

    async def one(case: Case) -> gates.Answered:
        async with room:
            return await _ask(needs, gate, version, case)

    answers = await asyncio.gather(*map(one, gate.cases))
    judged = gates.judged(version, gate, answers, judges.find)
    by_case = {case.id: case for case in gate.cases}
    shown = [_shown(by_case[answer.case], answer, gate, judges) for answer in answers]
    return Outcome(version=version, judged=judged, answers=shown)


async def _ask(needs: SwapNeeds, gate: GateSet, version: str, case: Case) -> gates.Answered:
    """Patient with a busy replica, and with a router that has yet to read the plan with the version in it."""
    until = needs.clock.monotonic() + PATIENCE_S
    while True:
        try:
            return await needs.ask(prompt_of(case, gate.tokens_max), version, case.id)
        except FlotillaError as error:
            passing = passes(error) or isinstance(error, NotFound)
            if not passing or needs.clock.monotonic() >= until:
                return gates.Answered(case=case.id, problem=error.detail)
            await needs.clock.sleep(RETRY_S)


def _shown(case: Case, answer: gates.Answered, gate: GateSet, judges: Judges) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "case": case.id,
        "text": answer.text,
        "problem": answer.problem or None,
        "score": None,
    }
    if not answer.problem:
        try:
            shown["score"] = gates.score(case, answer.text, gate, judges.find)
        except Exception as error:  # an operator's own code; `judged` counts it as an error too
            shown["problem"] = f"a judge broke with a {type(error).__name__}"
    return shown
