"""A plan on its way: the generator, and how far the record has carried it.

The generator itself is never stored. Whoever has the record has it too: a new one is given every
recorded outcome in its order, and so comes to where the lost one was. That works only if the plan is
pure, so each want that it yields is compared with the step that was recorded for it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any

from flotilla.core.errors import FlotillaError, LimitReached, PlanChanged, Problem, error_of
from flotilla.core.flow_facts import StepState
from flotilla.core.wants import Asked, Gather, Pass, Plan, Reply, Want, digest

YIELDS_MAX = 256


class Run:
    """`wants` are those that the plan waits for; `at` counts the steps before them. `end` is set when the
    plan is over, and `shown` is the caller's count of the steps whose effects it has given out."""

    def __init__(self, plan: Plan) -> None:
        self.at = 0
        self.shown = 0
        self.wants: tuple[Want, ...] = ()
        self.end: Reply | Problem | None = None
        self._plan = plan
        self._gather: Gather | None = None
        self._yields = 0
        self._move(lambda: next(plan))

    def digests(self) -> list[str]:
        """Of each want in its place: one that is gathered with others is not the same without them."""
        of = len(self.wants) if self._gather else 0
        return [digest((want, place, of)) for place, want in enumerate(self.wants)]

    def proceed(self, steps: Sequence[StepState]) -> None:
        """Goes on as far as the outcomes in `steps` carry it. Raises `PlanChanged`."""
        while self.end is None and self.at + len(self.wants) <= len(steps):
            mine = steps[self.at : self.at + len(self.wants)]
            self._compare(mine)
            if any(step.done is None for step in mine):
                return
            self.at += len(mine)
            self._give(mine)
        if self.at < len(steps) and (self.end is not None or self.at + len(self.wants) > len(steps)):
            raise _not_the_same(steps[self.at], "the plan is at its end" if self.end else "more at once")

    def close(self) -> None:
        with suppress(Exception):  # a plan that won't end is dropped all the same
            self._plan.close()

    def _compare(self, steps: Sequence[StepState]) -> None:
        for step, want, found in zip(steps, self.wants, self.digests(), strict=True):
            if step.begun.digest != found:
                raise _not_the_same(step, f"{want.what} ({found})")

    def _give(self, steps: Sequence[StepState]) -> None:
        problems = [step.done.problem for step in steps if step.done and step.done.problem]
        if problems and not (self._gather and self._gather.settle):
            error = error_of(problems[0])
            return self._move(lambda: self._plan.throw(error))
        if isinstance(next(iter(self.wants), None), Pass):
            self.end, self.wants = _passed(steps[0]), ()
            return self.close()
        all_given = [_given(step) for step in steps]
        given = all_given if self._gather else all_given[0]
        return self._move(lambda: self._plan.send(given))

    def _move(self, go: Callable[[], Any]) -> None:
        self.wants, self._gather = (), None
        try:
            self._take(go())
        except StopIteration as stop:
            self.end = stop.value if isinstance(stop.value, Reply) else _no_reply(stop.value)
        except FlotillaError as error:
            self.end = error.problem()
        except Exception as error:
            self.end = _broke(error)

    def _take(self, yielded: Any) -> None:
        self._yields += 1
        if self._yields > YIELDS_MAX:
            raise LimitReached(f"The plan wants more than {YIELDS_MAX} times.", next="Let other agents help.")
        if isinstance(yielded, Gather):
            self.wants, self._gather = yielded.wants, yielded
        elif isinstance(yielded, Want):
            self.wants = (yielded,)
        else:
            raise FlotillaError(f"The plan yielded a {type(yielded).__name__}, which is no want.")


def _given(step: StepState) -> Any:
    assert step.done is not None
    return step.done.problem or (step.done.outcome.given if step.done.outcome else None)


def _passed(step: StepState) -> Reply:
    assert step.done is not None and isinstance(step.done.outcome, Asked)
    return step.done.outcome.done


def _no_reply(value: object) -> Problem:
    return FlotillaError(f"The plan returned a {type(value).__name__} and no Reply.").problem()


def _broke(error: Exception) -> Problem:
    """The place, and not the words: those may be a customer's."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{PurePath(frame.filename).name}:{frame.lineno}"
    return FlotillaError(f"The plan broke with a {type(error).__name__} at {place}.").problem()


def _not_the_same(step: StepState, now: str) -> PlanChanged:
    begun = step.begun
    return PlanChanged(
        f"Step {begun.n} of the task {begun.task!r} was {begun.what} ({begun.digest}), and now it is {now}.",
        next="Plans must be pure, and keep their wants while tasks are under way: run the release that "
        "recorded it, or ask again under another task id.",
    )
