"""The gate: its questions put to the candidate and to the stable version, and both judged."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Collection

from actors.serving.swap_needs import SwapNeeds
from flotilla.core.errors import FlotillaError, Refused
from flotilla.core.generation import ChatMessage, Prompt
from flotilla.core.knowledge import Passage
from flotilla.core.policy import gate, judges, prompting
from flotilla.core.policy.retry import passes
from flotilla.core.swap_orders import Case, GateSet, Verdict

AT_ONCE_MAX = 4
PATIENCE_S = 60.0
RETRY_S = 0.5
KEPT_MAX = 32


class Evaluating:
    """Remembers how a version did at a gate set: neither changes."""

    def __init__(self, needs: SwapNeeds) -> None:
        self._needs = needs
        self._kept: dict[tuple[str, str], gate.Judged] = {}

    async def evaluate(self, gate_set: GateSet, candidate: str, stable: str) -> Verdict:
        """Raises `Refused` for a judge that can't be had."""
        judge_of = Judges(self._needs.judges)
        for judge in gate_set.judges:
            judge_of.find(judge.name)
        before = await self._stable(gate_set, stable, judge_of)
        after = await self._judged(gate_set, candidate, judge_of)
        return gate.verdict(gate_set, after, before)

    async def _stable(self, gate_set: GateSet, version: str, judge_of: Judges) -> gate.Judged:
        key = version, gate.digest(gate_set)
        if (kept := self._kept.get(key)) is not None:
            return kept
        judged = await self._judged(gate_set, version, judge_of)
        if not judged.problems:
            self._kept[key] = judged
            for old in list(self._kept)[:-KEPT_MAX]:
                del self._kept[old]
        return judged

    async def _judged(self, gate_set: GateSet, version: str, judge_of: Judges) -> gate.Judged:
        room = asyncio.Semaphore(AT_ONCE_MAX)

        async def one(case: Case) -> gate.Answered:
            async with room:
                return await self._ask(case, gate_set, version)

        answers = await asyncio.gather(*map(one, gate_set.cases))
        return gate.judged(version, gate_set, answers, judge_of.find)

    async def _ask(self, case: Case, gate_set: GateSet, version: str) -> gate.Answered:
        """Patient with what passes: a gate is to say how good a version is, not how busy the fleet."""
        clock, prompt = self._needs.clock, prompt_of(case, gate_set.tokens_max)
        until = clock.monotonic() + PATIENCE_S
        while True:
            try:
                return await self._needs.ask(prompt, version, case.id)
            except FlotillaError as error:
                if not passes(error) or clock.monotonic() >= until:
                    return gate.Answered(case=case.id, problem=error.detail)
                await clock.sleep(max(RETRY_S, min(error.retry_after_s or 0.0, 5.0)))


def prompt_of(case: Case, tokens_max: int) -> Prompt:
    """With passages as an agent would ask, else the bare question."""
    if case.context:
        passages = [Passage(id=str(n), document=str(n), title="", text=t) for n, t in enumerate(case.context)]
        return prompting.build(case.persona, passages, (), case.question, tokens_max=tokens_max)
    system = (ChatMessage(role="system", text=case.persona),) if case.persona else ()
    return Prompt(messages=(*system, ChatMessage(role="user", text=case.question)), tokens_max=tokens_max)


class Judges:
    """Those by name, and functions of the modules that the operator allows."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)
        self._found: dict[str, judges.JudgeOf] = {}

    def find(self, name: str) -> judges.JudgeOf:
        if ":" not in name:
            return judges.find(name)
        if name not in self._found:
            self._found[name] = self._load(*name.split(":", 1))
        return self._found[name]

    def _load(self, module: str, function: str) -> judges.JudgeOf:
        if module not in self._allowed:
            raise Refused(
                f"The module {module!r} may not judge.",
                field="gate.judges",
                next=f"Allowed: {', '.join(sorted(self._allowed)) or 'none'}.",
            )
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise Refused(f"There is no judge {module}:{function}: {error}.", field="gate.judges") from error
