"""What an agent hears, records and has performed. `flotilla.core.flow` decides about it."""

from __future__ import annotations

from typing import Any

import msgspec

from flotilla.core.actor import Fact
from flotilla.core.calls import Budget
from flotilla.core.effects import Message, Signal, Step, Work
from flotilla.core.errors import Problem
from flotilla.core.wants import CallTool, Done, Generate, Outcome, Search, digest

# -- messages


class Do(Message[Done], frozen=True, kw_only=True, tag="agent.do"):
    """A task. `task` is the asker's id for it, by which it is done once however often it is asked for.

    `chain` names the questions that led to this one, first to last; `person` is whose key seals the
    record of an agent that is asked on one person's behalf."""

    idempotent = True

    task: str
    question: str
    budget: Budget = Budget()
    context: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()
    person: str = ""

    @property
    def digest(self) -> str:
        return digest((self.question, self.context))


class Redo(Message[Any], frozen=True, kw_only=True, tag="agent.redo"):
    """Makes a call of a tool that was given up, once more under its key: what a dead letter holds. Answered
    with the tool's value."""

    idempotent = True

    key: str
    call: CallTool


Messages = Do | Redo


# -- signals of its own work


class Came(Signal, frozen=True, kw_only=True, tag="agent.came"):
    """What came of a step. `let_go`: its task was stopped before it could be done."""

    step: str
    outcome: Outcome | None = None
    problem: Problem | None = None
    let_go: bool = False


# -- effects


class Perform(Work, frozen=True, kw_only=True):
    """Ends with `Came(step)`. `key` is what a tool knows the call by. `last`: it was begun by an activation
    that is lost, and its task is stopped: only what came of it is to be learnt."""

    step: str
    want: Search | Generate | CallTool
    idempotency_key: str = ""
    last: bool = False

    @property
    def key(self) -> str:
        return self.step


class LetGo(Step, frozen=True, kw_only=True):
    """A call of a tool that is in flight is waited for; no other try is made."""

    step: str


# -- facts


class TaskAccepted(Fact, frozen=True, kw_only=True, tag="task.accepted"):
    do: Do


class StepBegun(Fact, frozen=True, kw_only=True, tag="step.begun"):
    """The intent, recorded before anything is done. `n` counts a task's steps from 1; `share` is what this
    one may spend, its own call included. `call` and `key` are set for tools."""

    task: str
    n: int
    what: str
    digest: str
    share: Budget = Budget(tokens=0, calls=0)
    key: str = ""
    call: CallTool | None = None
    pause_s: float | None = None


class StepDone(Fact, frozen=True, kw_only=True, tag="step.done"):
    """The outcome, or why there is none. `let_go`: the call was given up with its task."""

    task: str
    n: int
    outcome: Outcome | None = None
    problem: Problem | None = None
    let_go: bool = False


class ThreadSaid(Fact, frozen=True, kw_only=True, tag="thread.said"):
    task: str
    text: str


class TaskStopping(Fact, frozen=True, kw_only=True, tag="task.stopping"):
    """Nothing more is begun; tools that were begun are waited for. Then the task has failed with `problem`
    or, without one, is cancelled."""

    task: str
    problem: Problem | None = None


class TaskResumed(Fact, frozen=True, kw_only=True, tag="task.resumed"):
    """A cancelled task was asked for again: it goes on with what had been done of it."""

    task: str


class TaskDone(Fact, frozen=True, kw_only=True, tag="task.done"):
    task: str
    done: Done


class TaskFailed(Fact, frozen=True, kw_only=True, tag="task.failed"):
    task: str
    problem: Problem


class TaskCancelled(Fact, frozen=True, kw_only=True, tag="task.cancelled"):
    task: str


class RedoBegun(Fact, frozen=True, kw_only=True, tag="redo.begun"):
    key: str
    call: CallTool


class RedoDone(Fact, frozen=True, kw_only=True, tag="redo.done"):
    key: str
    outcome: Outcome | None = None
    problem: Problem | None = None


AgentFact = (
    TaskAccepted
    | StepBegun
    | StepDone
    | ThreadSaid
    | TaskStopping
    | TaskResumed
    | TaskDone
    | TaskFailed
    | TaskCancelled
    | RedoBegun
    | RedoDone
)


# -- state


class StepState(msgspec.Struct, kw_only=True):
    begun: StepBegun
    done: StepDone | None = None


class Task(msgspec.Struct, kw_only=True):
    """A task that is not at its end. `stopping` as in `TaskStopping`; `again`: asked for once more while it
    was being stopped."""

    do: Do
    steps: list[StepState] = []
    stopping: TaskStopping | None = None
    again: bool = False

    @property
    def tools_open(self) -> bool:
        return any(step.begun.call is not None for step in self.open)

    @property
    def open(self) -> list[StepState]:
        """Begun, and nothing has come of them yet."""
        return [step for step in self.steps if step.done is None]


class Past(msgspec.Struct, kw_only=True):
    """A task at its end: done, failed or, with what it takes to go on, cancelled."""

    digest: str
    done: Done | None = None
    problem: Problem | None = None
    cancelled: Task | None = None
