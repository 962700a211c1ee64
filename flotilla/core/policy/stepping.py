"""How a step of a plan is begun, given out, stopped and found again: the small change of `core.flow`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from flotilla.core.calls import CHAIN_MAX, Budget
from flotilla.core.effects import Ask, Effect, Stop
from flotilla.core.errors import BudgetSpent, Cycle, FlotillaError, Problem
from flotilla.core.flow_facts import Do, LetGo, Perform, StepBegun, StepState, Task
from flotilla.core.generation import Origin
from flotilla.core.ids import ActorId
from flotilla.core.reminders import Forget, Remind
from flotilla.core.wants import AskAgent, CallTool, Generate, Pause, Publish, Search, Text, Want, digest


def step_name(task: str, n: int) -> str:
    """What a step is called in effects and signals, and what an agent that is asked knows its task by."""
    return f"{task}.{n}"


def find(task: Task | None, name: str) -> StepState | None:
    """The step of that name, of the task under way."""
    owner, _, n = name.rpartition(".")
    if task is None or task.do.task != owner or not n.isdecimal() or not 0 < int(n) <= len(task.steps):
        return None
    return task.steps[int(n) - 1]


# -- beginning


def begun(id: ActorId, task: Task, want: Want, share: Budget, found: str) -> StepBegun:
    """The next step. The key of a tool's call follows from who calls it for what, so it is the same
    however often the call is made, even if the task is done again from its beginning."""
    n = len(task.steps) + 1
    tool = isinstance(want, CallTool)
    return StepBegun(
        task=task.do.task,
        n=n,
        what=want.what,
        digest=found,
        share=share,
        key=f"{id}:{step_name(task.do.task, n)}" if tool else "",
        call=want if isinstance(want, CallTool) else None,
        pause_s=want.seconds if isinstance(want, Pause) else None,
    )


def refusal(id: ActorId, task: Task, want: Want, share: Budget | None) -> Problem | None:
    """Why `want` isn't even begun."""
    error: FlotillaError | None = None
    if share is None:
        error = BudgetSpent(
            f"{want.what} is over the budget of the task {task.do.task!r}.",
            next="Ask again under another task id with a larger budget.",
        )
    elif isinstance(want, AskAgent):
        error = _cycle(_chain(id, task), want)
    return error.problem() if error else None


def _cycle(chain: tuple[str, ...], want: AskAgent) -> Cycle | None:
    if _link(want.kind, want.question) in chain:
        return Cycle(f"This question was put to an agent {want.kind!r} before, on the way here.")
    if len(chain) >= CHAIN_MAX:
        return Cycle(f"{CHAIN_MAX} agents wait for each other already.", next="Answer with what is known.")
    return None


def _chain(id: ActorId, task: Task) -> tuple[str, ...]:
    return (*task.do.chain, _link(id.kind, task.do.question))


def _link(kind: str, question: str) -> str:
    return f"{kind}:{digest(' '.join(question.casefold().split()))}"


# -- giving out


def effects(id: ActorId, task: Task, wants: tuple[Want, ...], shown: int) -> Iterator[Effect]:
    """For those of the last steps, which are for `wants`, that are open and not among the first `shown`."""
    for step, want in zip(task.steps[len(task.steps) - len(wants) :], wants, strict=True):
        if step.done is None and step.begun.n > shown and (effect := _effect(id, task, step.begun, want)):
            yield effect


def _effect(id: ActorId, task: Task, begun: StepBegun, want: Want) -> Effect | None:
    name = step_name(task.do.task, begun.n)
    match want:
        case Search() | CallTool():
            return Perform(step=name, want=want, idempotency_key=begun.key)
        case Generate(prompt=prompt):
            most = min(prompt.tokens_max, begun.share.tokens)
            kept = _kept(task, prompt.model)
            whole = msgspec.structs.replace(
                prompt, tokens_max=most, model=kept, pinned=kept != prompt.model, origin=_origin(id)
            )
            return Perform(step=name, want=Generate(whole))
        case AskAgent():
            return _ask(id, task, begun, want)
        case Pause() | Publish():
            return None


def _kept(task: Task, wanted: str) -> str:
    """The version that has worked on this task before, if it is one of the model wanted: a task never
    changes its model on the way."""
    for step in reversed(task.steps):
        outcome = step.done.outcome if step.done else None
        if isinstance(outcome, Text) and outcome.model and wanted in _names(outcome.model):
            return outcome.model
    return wanted


def versions(tasks: Iterable[Task]) -> set[str]:
    """Those that have worked on these tasks and are to go on with them. One that is being stopped may be wanted
    again before its tools have ended."""
    outcomes = (step.done.outcome for task in tasks for step in task.steps if step.done)
    return {outcome.model for outcome in outcomes if isinstance(outcome, Text) and outcome.model}


def _names(version: str) -> tuple[str, str, str]:
    """What it may have been asked for by."""
    return "", version, version.partition("@")[0]


def _origin(id: ActorId) -> Origin:
    return Origin(tenant=id.tenant, conversation=id.name, agent=id.kind)


def _ask(id: ActorId, task: Task, begun: StepBegun, want: AskAgent) -> Ask:
    name = step_name(task.do.task, begun.n)
    do = Do(
        task=name,
        question=want.question,
        budget=Budget(tokens=begun.share.tokens, calls=begun.share.calls - 1),
        context=want.context,
        chain=_chain(id, task),
        person=task.do.person,
    )
    to = ActorId(id.tenant, want.kind, want.name or id.name)
    return Ask(key=name, to=to, message=do, timeout_s=want.timeout_s)


def redo(key: str, call: CallTool) -> Perform:
    return Perform(step=key, want=call, idempotency_key=key)


# -- stopping


def stops(task: Task) -> Iterator[Effect]:
    """Ends what runs. A call of a tool that is in flight is waited for."""
    for step in task.open:
        name = step_name(task.do.task, step.begun.n)
        if step.begun.call:
            yield LetGo(step=name)
        elif step.begun.pause_s is None:
            yield Stop(key=name)


def last_calls(task: Task) -> Iterator[Effect]:
    """Learns what came of calls that were in flight in an activation that is lost."""
    for step in task.open:
        if call := step.begun.call:
            name = step_name(task.do.task, step.begun.n)
            yield Perform(step=name, want=call, idempotency_key=step.begun.key, last=True)


# -- pauses


def reminders(task: Task) -> Iterator[Remind]:
    """Of the pauses that are under way."""
    for step in task.open:
        yield from reminder(step.begun)


def reminder(begun: StepBegun) -> Iterator[Remind]:
    if begun.pause_s is not None:
        yield Remind(name=step_name(begun.task, begun.n), after_s=begun.pause_s)


def forgets(task: Task) -> Iterator[Forget]:
    return (Forget(name=remind.name) for remind in reminders(task))
