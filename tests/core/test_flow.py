"""Plans without crashes: what each want gives, in which order, and who is told what."""

from __future__ import annotations

import pytest

from flotilla.core.calls import Budget
from flotilla.core.effects import Ask, Record, Wait, Woken
from flotilla.core.errors import BudgetSpent, Conflict, Cycle, FlotillaError, LimitReached, NotFound, Problem
from flotilla.core.flow import TASKS_MAX, Agent, agent_kind
from flotilla.core.flow_facts import Came, Do, Perform, StepBegun, StepDone, TaskDone, ThreadSaid
from flotilla.core.flow_run import YIELDS_MAX
from flotilla.core.flow_state import PAST_MAX
from flotilla.core.generation import ChatMessage, Prompt
from flotilla.core.ids import ActorId
from flotilla.core.wants import (
    GATHER_MAX,
    AskAgent,
    CallTool,
    Done,
    Gather,
    Generate,
    Pass,
    Pause,
    Plan,
    Publish,
    Reply,
    Search,
    Text,
    Value,
)
from tests.agents import USAGE, Agents


def prompt(text: str, tokens_max: int = 64) -> Prompt:
    return Prompt(messages=(ChatMessage(role="user", text=text),), tokens_max=tokens_max)


class Specialist(Agent):
    kind = agent_kind("specialist")

    def answer(self, task: Do) -> Plan:
        hits = yield Search("bank", task.question)
        text = yield Generate(prompt(task.question))
        return Reply(text=text, documents=(hits[0].passage,))


class Router(Agent):
    kind = agent_kind("router")

    def answer(self, task: Do) -> Plan:
        drafts = yield Gather(
            AskAgent("specialist", f"one {task.question}"),
            AskAgent("specialist", f"two {task.question}", name="other"),
        )
        yield Publish(f"{len(drafts)} drafts")
        yield CallTool("note", {"text": drafts[0].text})
        return Reply(text=" ".join(draft.text for draft in drafts))


def agent_of(name: str, *wants: object) -> type[Agent]:
    """An agent that wants these things, one after the other, and shows what it is given."""

    class Listed(Agent):
        kind = agent_kind(name)

        def answer(self, task: Do) -> Plan:
            given = []
            for want in wants:
                given.append((yield want))  # type: ignore[misc]
            return Reply(text=repr(given))

    return Listed


def problem_of(result: object) -> Problem:
    assert isinstance(result, Problem), result
    return result


# -- wants


def test_what_is_wanted_is_given_and_recorded_before_it_is_used() -> None:
    world = Agents(Router, Specialist)
    ticket = world.do("router")
    world.finish()
    assert ticket.result.text == "one Why?! two Why?!"
    assert world.begun("router") == ["AskAgent specialist"] * 2 + ["Publish", "CallTool note"]
    assert world.facts("router", ThreadSaid)[0].text == "2 drafts"
    assert ticket.result == world.facts("router", TaskDone)[0].done


def test_nothing_is_begun_before_its_intent_is_in_the_journal() -> None:
    world = Agents(Router, Specialist)
    world.do("router")
    first, second, *asks = world.performed
    assert isinstance(first, Record) and isinstance(second, Wait)
    assert [type(effect) for effect in asks] == [Ask, Ask]
    assert [fact.n for fact in first.facts if isinstance(fact, StepBegun)] == [1, 2]


@pytest.mark.parametrize("order", [(0, 0), (1, 0)])
def test_a_gather_gives_outcomes_in_the_order_of_its_wants(order: tuple[int, int]) -> None:
    world = Agents(agent_of("a", Gather(CallTool("x"), CallTool("y"))))
    ticket = world.do("a")
    for at in order:
        world.step(at)
        world.step(at)
    assert ticket.result.text == "[[{'did': 'x'}, {'did': 'y'}]]"


def failing(call: CallTool) -> object:
    if call.name == "broken":
        raise NotFound("There is nothing.")
    return call.name


def test_a_want_that_fails_is_raised_into_the_plan() -> None:
    class Careful(Agent):
        kind = agent_kind("careful")

        def answer(self, task: Do) -> Plan:
            try:
                yield CallTool("broken")
            except NotFound as error:
                return Reply(text=f"caught: {error.detail}")
            return Reply(text="not raised")

    world = Agents(Careful, tool=failing)
    ticket = world.do("careful")
    assert world.finish() and ticket.result.text == "caught: There is nothing."


def test_an_error_that_the_plan_lets_pass_is_the_askers() -> None:
    world = Agents(agent_of("a", Gather(CallTool("x"), CallTool("broken"))), tool=failing)
    ticket = world.do("a")
    world.finish()
    assert problem_of(ticket.result).detail == "There is nothing."
    assert [step.outcome is None for step in world.facts("a", StepDone)] == [False, True], (
        "both were waited for"
    )
    again = world.do("a")
    assert again.result == ticket.result, "a known end is told again"


def test_a_gather_that_settles_gives_problems() -> None:
    world = Agents(agent_of("a", Gather(CallTool("broken"), CallTool("x"), settle=True)), tool=failing)
    ticket = world.do("a")
    world.finish()
    assert "Problem(" in ticket.result.text and "'x'" in ticket.result.text


def test_an_empty_gather_gives_nothing_at_once() -> None:
    assert Agents(agent_of("a", Gather())).do("a").result.text == "[[]]"


def test_whom_a_task_is_passed_to_answers_it() -> None:
    world = Agents(agent_of("a", Pass("specialist", "and?"), CallTool("never")), Specialist)
    ticket = world.do("a")
    world.finish()
    assert ticket.result.text == "and?!" and ticket.result.documents
    assert world.begun("a") == ["Pass specialist"]


def test_a_task_that_can_not_be_passed_stays_with_the_plan() -> None:
    class Passing(Agent):
        kind = agent_kind("passing")

        def answer(self, task: Do) -> Plan:
            try:
                yield Pass("nobody", task.question)
            except FlotillaError:
                return Reply(text="then I will")
            return Reply(text="never")

    world = Agents(Passing)
    ticket = world.do("passing")
    assert world.finish() and ticket.result.text == "then I will"


def test_a_pause_is_a_reminder() -> None:
    world = Agents(agent_of("a", Pause(3600.0)))
    ticket = world.do("a")
    (remind,) = world.reminders.values()
    assert remind.after_s == 3600.0 and ticket.result is None
    world.finish()
    assert ticket.result.text == "[None]"


def test_agents_of_one_conversation_have_its_name() -> None:
    world = Agents(Router, Specialist)
    world.do("router")
    assert [running.effect.to.name for running in world.running] == ["a-1", "other"]  # type: ignore[union-attr]
    assert [running.effect.message.task for running in world.running] == ["t-1.1", "t-1.2"]  # type: ignore[union-attr]


# -- tasks


def test_a_task_is_done_once_however_often_it_is_asked_for() -> None:
    world = Agents(Specialist)
    first, second = world.do("specialist"), world.do("specialist")
    world.finish()
    third = world.do("specialist")
    assert first.result == second.result == third.result
    assert world.begun("specialist") == ["Search bank", "Generate"]


def test_another_question_under_a_known_task_is_a_conflict() -> None:
    world = Agents(Specialist)
    world.do("specialist")
    assert problem_of(world.do("specialist", "Else?").result).type.endswith(Conflict.slug)
    world.finish()
    assert problem_of(world.do("specialist", context=("more",)).result).type.endswith(Conflict.slug)


def test_one_task_at_a_time_in_the_order_in_which_they_came() -> None:
    world = Agents(Specialist)
    tickets = [world.do("specialist", task=f"t-{n}") for n in range(3)]
    assert len(world.running) == 1
    world.finish()
    assert [fact.task for fact in world.facts("specialist", TaskDone)] == ["t-0", "t-1", "t-2"]
    assert all(isinstance(ticket.result, Done) for ticket in tickets)


def test_too_many_tasks_are_refused_with_the_next_move() -> None:
    world = Agents(Specialist)
    for n in range(TASKS_MAX):
        world.do("specialist", task=f"t-{n}")
    refused = problem_of(world.do("specialist", task="t-more").result)
    assert refused.type.endswith(LimitReached.slug) and refused.retry_after_s
    assert problem_of(world.do("specialist", task="no name").result).field == "task"


def test_an_agent_remembers_only_the_last_tasks() -> None:
    world = Agents(Specialist)
    for n in range(PAST_MAX + 5):
        world.do("specialist", task=f"t-{n}")
        world.finish()
    agent = world.agent(world.id("specialist"))
    assert len(agent.past) == PAST_MAX and not agent.tasks and "run" not in vars(agent)


def test_a_snapshot_is_the_state_and_nothing_else() -> None:
    world = Agents(Router, Specialist)
    world.do("router")
    world.step()
    id = world.id("router")
    world.keep(id)
    assert b'"run"' not in world.snapshots[id].body
    world.awake[id] = world.folded(id)
    world.running.clear()
    world.feed(id, Woken())
    assert [type(running.effect) for running in world.running] == [Ask, Ask]


def test_what_comes_too_late_changes_nothing() -> None:
    world = Agents(Specialist)
    world.do("specialist")
    seq = world.agent(world.id("specialist")).seq
    for step in ("t-1.2", "t-1.0", "t-9.1", "t-1", "", "t-1.x", "t-1.²"):
        world.feed(world.id("specialist"), Came(step=step, outcome=Text("late")))
    assert world.agent(world.id("specialist")).seq == seq


# -- plans that are not as they should be


def test_a_plan_with_a_bug_fails_its_task_and_not_its_agent() -> None:
    class Buggy(Agent):
        kind = agent_kind("buggy")

        def answer(self, task: Do) -> Plan:
            yield Publish("so far so good")
            return Reply(text={}[task.question])

    world = Agents(Buggy)
    detail = problem_of(world.do("buggy").result).detail
    assert "KeyError at test_flow.py:" in detail and "Why?" not in detail
    assert world.do("buggy", task="t-2").result, "the next task is taken"


@pytest.mark.parametrize("want", ["a string", None, 7])
def test_what_is_no_want_fails_the_task(want: object) -> None:
    assert "no want" in problem_of(Agents(agent_of("a", want)).do("a").result).detail


def test_a_plan_must_return_a_reply() -> None:
    class Silent(Agent):
        kind = agent_kind("silent")

        def answer(self, task: Do) -> Plan:  # type: ignore[return]
            yield Publish("hm")

    assert "no Reply" in problem_of(Agents(Silent).do("silent").result).detail


def test_a_plan_that_never_ends_is_ended() -> None:
    class Endless(Agent):
        kind = agent_kind("endless")

        def answer(self, task: Do) -> Plan:
            while True:
                yield Publish("again")

    world = Agents(Endless)
    assert problem_of(world.do("endless").result).type.endswith(LimitReached.slug)
    assert len(world.facts("endless", ThreadSaid)) == YIELDS_MAX


def test_a_gather_is_bounded_and_passes_nothing() -> None:
    with pytest.raises(FlotillaError, match="at once"):
        Gather(*(Publish("x") for _ in range(GATHER_MAX + 1)))
    with pytest.raises(FlotillaError, match="several"):
        Gather(Pass("a", "b"))


# -- budgets


def test_what_is_spent_adds_up_over_the_agents_that_were_asked() -> None:
    world = Agents(Router, Specialist)
    ticket = world.do("router")
    world.finish()
    used = USAGE.prompt_tokens + USAGE.completion_tokens
    # Two asks, each with a search and a generation, and a tool.
    assert ticket.result.spent == Budget(tokens=2 * used, calls=7)
    assert ticket.result.usage.completion_tokens == 2 * USAGE.completion_tokens


def test_what_is_asked_at_once_shares_what_is_left() -> None:
    world = Agents(Router, Specialist)
    world.do("router", budget=Budget(tokens=1000, calls=12))
    budgets = [running.effect.message.budget for running in world.running]  # type: ignore[union-attr]
    assert budgets == [Budget(tokens=500, calls=5)] * 2


def test_a_generation_gets_no_more_tokens_than_are_left() -> None:
    world = Agents(agent_of("a", Generate(prompt("x", tokens_max=64))))
    world.do("a", budget=Budget(tokens=7, calls=1))
    (running,) = world.running
    assert isinstance(running.effect, Perform) and isinstance(running.effect.want, Generate)
    assert running.effect.want.prompt.tokens_max == 7


@pytest.mark.parametrize("budget", [Budget(tokens=16, calls=9), Budget(tokens=99, calls=1)])
def test_what_the_budget_does_not_pay_is_raised_into_the_plan(budget: Budget) -> None:
    class Thrifty(Agent):
        kind = agent_kind("thrifty")

        def answer(self, task: Do) -> Plan:
            text = yield Generate(prompt("x"))
            try:
                while True:
                    text = yield Generate(prompt(text))
            except BudgetSpent:
                yield Publish("notes are free")
                return Reply(text=text)

    world = Agents(Thrifty)
    ticket = world.do("thrifty", budget=budget)
    world.finish()
    most = 1 if budget.calls == 1 else 2
    assert world.begun("thrifty") == ["Generate"] * (most + 1) + ["Publish"]
    assert ticket.result.spent.calls == most


# -- cycles


def test_a_question_that_comes_round_again_is_a_cycle() -> None:
    ping = agent_of("ping", AskAgent("pong", "who begins?"))
    pong = agent_of("pong", AskAgent("ping", "Who  begins?", name="another"))
    world = Agents(ping, pong)
    ticket = world.do("ping", "who begins?")
    world.finish()
    assert problem_of(ticket.result).type.endswith(Cycle.slug)
    assert world.facts("pong", StepDone)[0].problem.type.endswith(Cycle.slug)


def test_a_chain_of_agents_ends_somewhere() -> None:
    class Deeper(Agent):
        kind = agent_kind("deeper")

        def answer(self, task: Do) -> Plan:
            depth = int(task.question)
            done = yield AskAgent("deeper", str(depth + 1), name=f"d-{depth}")
            return Reply(text=done.text)

    world = Agents(Deeper)
    ticket = world.do("deeper", "0")
    world.finish()
    assert problem_of(ticket.result).type.endswith(Cycle.slug)
    assert len(world.awake) == 32


# -- which model


class Chatty(Agent):
    """Generates, uses a tool, and generates again."""

    kind = agent_kind("chatty")

    def answer(self, task: Do) -> Plan:
        first = yield Generate(prompt("first"))
        yield CallTool("note", {"text": first})
        second = yield Generate(prompt("second"))
        return Reply(text=second)


def performed(effects: tuple[object, ...]) -> Perform:
    (found,) = [effect for effect in effects if isinstance(effect, Perform)]
    return found


def test_a_task_stays_with_the_version_that_began_it_over_its_tools_and_a_crash() -> None:
    actor = Chatty(id=ActorId("demo", "chatty", "c"))
    first = performed(actor.on(Do(task="t", question="q")))
    assert isinstance(first.want, Generate) and not first.want.prompt.pinned
    tool = performed(actor.on(Came(step=first.step, outcome=Text("said", USAGE, model="m@1"))))
    actor.drop_run()  # what a crash leaves: the record
    second = performed(actor.on(Came(step=tool.step, outcome=Value(None))))
    assert isinstance(second.want, Generate)
    assert (second.want.prompt.model, second.want.prompt.pinned) == ("m@1", True)
