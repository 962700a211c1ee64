"""What an agent knows: the fold of its journal. `flotilla.core.flow` decides on it."""

from __future__ import annotations

from functools import cached_property

import msgspec

from flotilla.core.actor import Actor
from flotilla.core.effects import Effect, Effects, Record
from flotilla.core.errors import Problem
from flotilla.core.flow_facts import (
    AgentFact,
    Do,
    Past,
    RedoBegun,
    RedoDone,
    StepBegun,
    StepDone,
    StepState,
    Task,
    TaskAccepted,
    TaskCancelled,
    TaskDone,
    TaskFailed,
    TaskResumed,
    TaskStopping,
    ThreadSaid,
)
from flotilla.core.flow_run import Run
from flotilla.core.reminders import Forget, Remind
from flotilla.core.wants import CallTool, Done, Plan

PAST_MAX = 16  # tasks at their end that an agent still answers from its record


class AgentState(Actor, kw_only=True, dict=True):
    """`tasks` are under way or wait, `past` are at their end; `redoing` are calls of tools that are made
    once more, by their key. The plan under way is no part of it: it lives in `__dict__`, made when needed."""

    tasks: dict[str, Task] = msgspec.field(default_factory=dict)
    past: dict[str, Past] = msgspec.field(default_factory=dict)
    redoing: dict[str, CallTool] = msgspec.field(default_factory=dict)
    sealed_for: str = ""

    def answer(self, task: Do) -> Plan:
        """The plan for `task`: a pure generator of wants."""
        raise NotImplementedError

    @property
    def task(self) -> Task | None:
        """The one under way."""
        return next(iter(self.tasks.values()), None)

    @property
    def unfinished(self) -> bool:
        return bool(self.tasks or self.redoing)

    @property
    def person(self) -> str:
        return self.sealed_for

    @cached_property
    def run(self) -> Run:
        """The plan of the task under way: from its beginning, if the activation is a fresh one."""
        assert self.task is not None
        return Run(self.answer(self.task.do))

    def drop_run(self) -> None:
        if run := vars(self).pop("run", None):
            run.close()

    # -- folding

    def apply(self, fact: AgentFact) -> None:
        match fact:
            case TaskAccepted():
                self.tasks[fact.do.task] = Task(do=fact.do)
                self.sealed_for = self.sealed_for or fact.do.person
            case StepBegun():
                self.tasks[fact.task].steps.append(StepState(begun=fact))
            case StepDone():
                self.tasks[fact.task].steps[fact.n - 1].done = fact
            case TaskStopping():
                self.tasks[fact.task].stopping, self.tasks[fact.task].again = fact, False
                self.drop_run()
            case TaskResumed():
                self._apply_resumed(fact)
            case TaskDone():
                self._close(fact.task, done=fact.done)
            case TaskFailed():
                self._close(fact.task, problem=fact.problem)
            case TaskCancelled():
                self._close(fact.task)
            case RedoBegun():
                self.redoing[fact.key] = fact.call
            case RedoDone():
                self.redoing.pop(fact.key, None)
            case ThreadSaid():
                pass

    def _apply_resumed(self, fact: TaskResumed) -> None:
        task = self.tasks.get(fact.task)
        if task is None:
            task = self.tasks[fact.task] = _cancelled(self.past.pop(fact.task))
        elif task.tools_open:
            task.again = True
            return
        task.stopping, task.again = None, False
        for step in task.steps:
            if step.done and step.done.let_go:
                step.done = None

    def _close(self, name: str, done: Done | None = None, problem: Problem | None = None) -> None:
        """Neither `done` nor `problem`: it was cancelled."""
        task = self.tasks[name]
        if task is self.task:
            self.drop_run()
        del self.tasks[name]
        cancelled = None if done or problem else task
        self.past[name] = Past(digest=task.do.digest, done=done, problem=problem, cancelled=cancelled)
        while len(self.past) > PAST_MAX:
            del self.past[next(iter(self.past))]


def _cancelled(past: Past) -> Task:
    assert past.cancelled is not None
    return past.cancelled


class Decision:
    """What is decided about one signal. Facts are applied as they are added, and recorded all at once,
    before anything that rests on them."""

    def __init__(self, agent: AgentState) -> None:
        self._agent = agent
        self._facts: list[AgentFact] = []
        self._reminders: dict[str, Remind | Forget] = {}
        self._first: list[Effect] = []
        self._then: list[Effect] = []

    def add(self, fact: AgentFact) -> Decision:
        self._agent.fold(fact)
        self._facts.append(fact)
        return self

    def remind(self, *changes: Remind | Forget) -> Decision:
        self._reminders.update({change.name: change for change in changes})
        return self

    def first(self, *effects: Effect) -> Decision:
        self._first += effects
        return self

    def then(self, *effects: Effect) -> Decision:
        self._then += effects
        return self

    def effects(self) -> Effects:
        remind = tuple(self._reminders.values())
        facts = tuple(self._facts)
        unfinished = self._agent.unfinished
        record = (Record(facts=facts, unfinished=unfinished, remind=remind),) if facts else ()
        return (*self._first, *record, *self._then)
