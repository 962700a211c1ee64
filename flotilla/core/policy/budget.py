"""What the steps of a task may spend, and what they have spent.

Each want but `Publish` and `Pause` is a call. Tokens are spent by generating, prompt and reply, and by
asking agents. What runs at once shares what is left evenly, so that together they can't spend it twice.
A prompt's tokens are known only afterwards: the one generation that ends a budget may go over it by those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flotilla.core.calls import Budget
from flotilla.core.flow_facts import StepState
from flotilla.core.generation import Usage
from flotilla.core.wants import AskAgent, Asked, Generate, Outcome, Pause, Publish, Text, Want

NONE = Budget(tokens=0, calls=0)


def shares(wants: Sequence[Want], left: Budget) -> list[Budget | None]:
    """For each want what it may spend, its own call included; None for one that can't be paid any more."""
    calls = sum(_costs(want) for want in wants)
    spenders = max(1, sum(isinstance(want, Generate | AskAgent) for want in wants))
    askers = max(1, sum(isinstance(want, AskAgent) for want in wants))
    tokens, lent = left.tokens // spenders, max(0, left.calls - calls) // askers
    before = 0
    found: list[Budget | None] = []
    for want in wants:
        before += _costs(want)
        found.append(_share(want, tokens, lent) if before <= left.calls or not _costs(want) else None)
    return found


def _share(want: Want, tokens: int, lent: int) -> Budget | None:
    match want:
        case Publish() | Pause():
            return NONE
        case Generate() | AskAgent() if tokens <= 0:
            return None
        case Generate():
            return Budget(tokens=tokens, calls=1)
        case AskAgent():
            return Budget(tokens=tokens, calls=1 + lent)
        case _:
            return Budget(tokens=0, calls=1)


def _costs(want: Want) -> bool:
    return not isinstance(want, Publish | Pause)


def left(budget: Budget, steps: Iterable[StepState]) -> Budget:
    gone = spent(steps)
    return Budget(tokens=max(0, budget.tokens - gone.tokens), calls=max(0, budget.calls - gone.calls))


def spent(steps: Iterable[StepState]) -> Budget:
    tokens = calls = 0
    for step in steps:
        calls += min(1, step.begun.share.calls)
        match _outcome(step):
            case Text(usage=usage):
                tokens += usage.prompt_tokens + usage.completion_tokens
            case Asked(done=done):
                tokens, calls = tokens + done.spent.tokens, calls + done.spent.calls
            case _:
                pass
    return Budget(tokens=tokens, calls=calls)


def usage(steps: Iterable[StepState]) -> Usage:
    """Of all models that worked on it."""
    used = [u for step in steps if (u := _usage(_outcome(step)))]
    return Usage(
        prompt_tokens=sum(u.prompt_tokens for u in used),
        completion_tokens=sum(u.completion_tokens for u in used),
        cached_tokens=sum(u.cached_tokens for u in used),
    )


def _usage(outcome: Outcome | None) -> Usage | None:
    match outcome:
        case Text(usage=usage):
            return usage
        case Asked(done=done):
            return done.usage
        case _:
            return None


def _outcome(step: StepState) -> Outcome | None:
    return step.done.outcome if step.done else None
