"""An agent: an actor that works on a task by a plan, whatever dies on the way.

    class Router(Agent):
        kind = agent_kind("router")

        def answer(self, task: Do) -> Plan:
            drafts = yield Gather(AskAgent("cards", task.question), AskAgent("disputes", task.question))
            best = max(drafts, key=lambda draft: len(draft.documents))
            return Reply(text=best.text, documents=best.documents)

The plan is pure. The agent records what it wants before it is done, and what came of it before the plan
hears of it; so another host takes the record, runs the plan through it and goes on. One task at a time,
in the order in which they came.
"""

from __future__ import annotations

import msgspec

from flotilla.core.actor import Kind, KindLimits
from flotilla.core.effects import (
    Abandoned,
    Answer,
    Answered,
    Due,
    Effects,
    Refuse,
    Wait,
    Woken,
)
from flotilla.core.errors import (
    Conflict,
    FlotillaError,
    LimitReached,
    PlanChanged,
    Problem,
    Refused,
    error_of,
)
from flotilla.core.flow_facts import (
    AgentFact,
    Came,
    Do,
    Messages,
    Redo,
    RedoBegun,
    RedoDone,
    StepDone,
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
from flotilla.core.flow_state import AgentState, Decision
from flotilla.core.ids import is_name
from flotilla.core.policy import budget, stepping
from flotilla.core.wants import NOTHING, Asked, Done, Publish, Reply

TASKS_MAX = 16  # under way and waiting, of one agent
REDOING_MAX = 16


def agent_kind(name: str, *, limits: KindLimits | None = None) -> Kind:
    return Kind(name=name, messages=Messages, facts=AgentFact, limits=limits or KindLimits())


class Agent(AgentState, kw_only=True):
    """Subclasses set `kind` and write `answer`."""

    # -- what is heard

    def on(self, signal: object) -> Effects:
        match signal:
            case Do():
                return self._on_do(signal)
            case Woken():
                return self._on_woken()
            case Came() if signal.step in self.redoing:
                return self._on_redone(signal)
            case Came():
                return self._on_came(signal)
            case Answered():
                return self._on_came(_came_of(signal))
            case Due():
                return self._on_came(Came(step=signal.name, outcome=NOTHING))
            case Abandoned():
                return self._on_abandoned(signal)
            case Redo():
                return self._on_redo(signal)
            case _:
                raise TypeError(f"An agent hears no {type(signal).__name__}.")

    def _on_do(self, do: Do) -> Effects:
        known = self.tasks.get(do.task) or self.past.get(do.task)
        if known is None:
            return self._accept(do)
        if do.digest != (known.do.digest if isinstance(known, Task) else known.digest):
            raise Conflict(
                f"The task {do.task!r} is known with another question.",
                field="task",
                next="Give each task an id of its own.",
            )
        if isinstance(known, Task):
            return self._join(do, known)
        if known.problem:
            raise error_of(known.problem)
        return (Answer(value=known.done),) if known.done else self._resume(do)

    def _accept(self, do: Do) -> Effects:
        if not is_name(do.task):
            raise Refused("`task` must be 1 to 128 letters, digits or _ . : -", field="task")
        self._check_room()
        return self._decided(Decision(self).add(TaskAccepted(do=do)).then(Wait(key=do.task)))

    def _check_room(self) -> None:
        if len(self.tasks) >= TASKS_MAX:
            raise LimitReached(
                f"{len(self.tasks)} tasks already wait for this agent.",
                next="Wait for one of them, or ask an agent of another name.",
                retry_after_s=1.0,
            )

    def _join(self, do: Do, task: Task) -> Effects:
        """One more waits. A task that is just being cancelled goes on once its tools have ended."""
        out = Decision(self)
        if task.stopping and not task.stopping.problem and not task.again:
            out.add(TaskResumed(task=do.task))
        return out.then(Wait(key=do.task)).effects()

    def _resume(self, do: Do) -> Effects:
        self._check_room()
        return self._decided(self._resumed(Decision(self), do.task).then(Wait(key=do.task)))

    def _resumed(self, out: Decision, name: str) -> Decision:
        out.add(TaskResumed(task=name))
        return out.remind(*stepping.reminders(self.tasks[name]))

    def _on_woken(self) -> Effects:
        out = Decision(self)
        if self.task and self.task.stopping:
            out.then(*stepping.last_calls(self.task))
        redoing = (stepping.redo(key, call) for key, call in self.redoing.items())
        return self._decided(out.then(*redoing))

    def _on_came(self, came: Came) -> Effects:
        """What came of a step. One that was stopped may still report; nobody waits for it."""
        task = self.task
        step = stepping.find(task, came.step)
        if task is None or step is None or step.done is not None:
            return ()
        n = step.begun.n
        fact = StepDone(
            task=task.do.task, n=n, outcome=came.outcome, problem=came.problem, let_go=came.let_go
        )
        return self._decided(Decision(self).add(fact))

    def _on_abandoned(self, signal: Abandoned) -> Effects:
        task = self.tasks.get(signal.key)
        if task is None or (task.stopping and not task.again):
            return ()
        if task.stopping:
            return Decision(self).add(TaskStopping(task=signal.key)).effects()
        if task is not self.task:
            return Decision(self).add(TaskCancelled(task=signal.key)).effects()
        out = Decision(self).first(*stepping.stops(task)).remind(*stepping.forgets(task))
        return self._decided(out.add(TaskStopping(task=signal.key)))

    def _on_redo(self, redo: Redo) -> Effects:
        wait = Wait(key=redo.key)
        if redo.key in self.redoing:
            return (wait,)
        if len(self.redoing) >= REDOING_MAX:
            raise LimitReached(f"{REDOING_MAX} calls are already made again.", retry_after_s=1.0)
        out = Decision(self).add(RedoBegun(key=redo.key, call=redo.call))
        return out.then(wait, stepping.redo(redo.key, redo.call)).effects()

    def _on_redone(self, came: Came) -> Effects:
        out = Decision(self).add(RedoDone(key=came.step, outcome=came.outcome, problem=came.problem))
        if came.problem:
            return out.then(Refuse(problem=came.problem, key=came.step)).effects()
        return out.then(Answer(value=came.outcome.given if came.outcome else None, key=came.step)).effects()

    # -- going on

    def _decided(self, out: Decision) -> Effects:
        """What has been decided, and all that follows from it."""
        while (task := self.task) and self._goes_on(out, task):
            pass
        return out.effects()

    def _goes_on(self, out: Decision, task: Task) -> bool:
        """One move of the task under way; False once it waits."""
        if task.stopping:
            return self._stopped(out, task, task.stopping)
        run = self.run
        try:
            run.proceed(task.steps)
        except PlanChanged as error:
            self.drop_run()
            out.then(*stepping.last_calls(task)).remind(*stepping.forgets(task))
            out.add(TaskStopping(task=task.do.task, problem=error.problem()))
            return True
        if run.end is not None:
            self._end(out, task, run.end)
            return True
        if run.at == len(task.steps):
            self._begin(out, task, run)
        out.then(*stepping.effects(self.id, task, run.wants, run.shown))
        run.shown = len(task.steps)
        return all(step.done for step in task.steps)

    def _begin(self, out: Decision, task: Task, run: Run) -> None:
        shares = budget.shares(run.wants, budget.left(task.do.budget, task.steps))
        name = task.do.task
        for want, share, found in zip(run.wants, shares, run.digests(), strict=True):
            problem = stepping.refusal(self.id, task, want, share)
            granted = budget.NONE if share is None or problem else share
            begun = stepping.begun(self.id, task, want, granted, found)
            out.add(begun).remind(*stepping.reminder(begun))
            if problem:
                out.add(StepDone(task=name, n=begun.n, problem=problem))
            elif isinstance(want, Publish):
                out.add(ThreadSaid(task=name, text=want.text))
                out.add(StepDone(task=name, n=begun.n, outcome=NOTHING))

    def _end(self, out: Decision, task: Task, end: Reply | Problem) -> None:
        name = task.do.task
        if isinstance(end, Problem):
            out.add(TaskFailed(task=name, problem=end)).then(Refuse(problem=end, key=name))
            return
        done = Done(
            text=end.text,
            documents=end.documents,
            usage=budget.usage(task.steps),
            spent=budget.spent(task.steps),
        )
        out.add(TaskDone(task=name, done=done)).then(Answer(value=done, key=name))

    def _stopped(self, out: Decision, task: Task, stopping: TaskStopping) -> bool:
        """Ends a task that is being stopped, once no call of a tool hangs in the air."""
        name = task.do.task
        if task.tools_open:
            return False
        if stopping.problem:
            self._end(out, task, stopping.problem)
        elif task.again:
            self._resumed(out, name)
        else:
            out.add(TaskCancelled(task=name))
        return True


def _came_of(answered: Answered) -> Came:
    if answered.problem:
        return Came(step=answered.key, problem=answered.problem)
    try:
        return Came(step=answered.key, outcome=Asked(msgspec.convert(answered.value, Done)))
    except msgspec.ValidationError:
        error = FlotillaError("Who was asked is no agent: it answered with something else than `Done`.")
        return Came(step=answered.key, problem=error.problem())
