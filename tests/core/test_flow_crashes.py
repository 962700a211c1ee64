"""Agents that lose their host at any moment: the same answer, each effect under the same key."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla.core.effects import Woken
from flotilla.core.errors import NotFound, Problem, Unavailable
from flotilla.core.flow import REDOING_MAX, Agent, agent_kind
from flotilla.core.flow_facts import (
    Came,
    Do,
    Perform,
    Redo,
    StepBegun,
    StepDone,
    TaskCancelled,
    TaskDone,
    TaskResumed,
    TaskStopping,
)
from flotilla.core.wants import (
    AskAgent,
    CallTool,
    Gather,
    Generate,
    Pass,
    Pause,
    Plan,
    Publish,
    Reply,
    Search,
)
from tests.agents import Agents
from tests.core.test_flow import agent_of, problem_of, prompt


class Clerk(Agent):
    kind = agent_kind("clerk")

    def answer(self, task: Do) -> Plan:
        hits = yield Search("bank", task.question)
        booked, text = yield Gather(
            CallTool("book", {"what": task.question}), Generate(prompt(hits[0].passage.text))
        )
        yield Pause(60.0)
        return Reply(text=f"{booked['did']}: {text}", documents=(hits[0].passage,))


class Desk(Agent):
    kind = agent_kind("desk")

    def answer(self, task: Do) -> Plan:
        yield Publish(f"asked: {task.question}")
        first = yield AskAgent("clerk", f"{task.question} (1)")
        try:
            yield CallTool("broken")
        except NotFound:
            yield Publish("it is broken")
        second, third = yield Gather(
            AskAgent("clerk", f"{task.question} (2)"), CallTool("mail", {"text": first.text})
        )
        yield CallTool("log", {"texts": [first.text, second.text, third["did"]]})
        return (yield Pass("clerk", f"{task.question} (3)"))


def tool(call: CallTool) -> object:
    if call.name == "broken":
        raise NotFound("There is nothing.")
    return {"did": call.name}


def play(deaths: set[int], choices: list[int], keyed: bool = True) -> Agents:
    world = Agents(Desk, Clerk, keyed=keyed, tool=tool, deaths=deaths)
    ticket = world.do("desk")
    for at in choices:
        world.step(at)
    world.finish()
    assert not isinstance(ticket.result, Problem | None), ticket.result
    assert ticket.result.text == "book: About Why? (3).!"
    return world


def check(world: Agents) -> None:
    """What must hold of a record, whatever has happened."""
    for id in world.journal:
        agent = world.agent(id)
        codec = world.codecs[id.kind]
        assert codec.snapshot(world.folded(id)) == codec.snapshot(agent), "memory is what the record tells"
        begun = [(f.task, f.n) for f in world.facts(id.kind, StepBegun)]
        done = [(f.task, f.n) for f in world.facts(id.kind, StepDone) if not f.let_go]
        assert len(begun) == len(set(begun)), "a step is begun once"
        assert len(done) == len(set(done)) and set(done) <= set(begun), "and has one outcome"


WHOLE = play(set(), [])


def keys(world: Agents) -> Counter[str]:
    return Counter(key for key, _ in world.done_by_tools)


@pytest.mark.parametrize("keyed", [True, False])
def test_a_plan_ends_the_same_wherever_a_host_dies(keyed: bool) -> None:
    for death in range(1, len(WHOLE.performed) + 1):
        world = play({death}, [], keyed)
        check(world)
        assert keys(world).keys() == keys(WHOLE).keys()
        assert not keyed or keys(world) == keys(WHOLE), "with keys, each effect is there once"


@settings(max_examples=150)
@given(st.sets(st.integers(1, 120), max_size=12), st.lists(st.integers(0, 3), max_size=60))
def test_a_plan_ends_the_same_however_often_hosts_die_and_whatever_comes_first(
    deaths: set[int], choices: list[int]
) -> None:
    world = play(deaths, choices)
    check(world)
    assert keys(world) == keys(WHOLE)


def test_only_a_tool_without_keys_does_it_twice() -> None:
    """Its host dies between what it did and the record of it."""
    for keyed, times in ((True, 1), (False, 2)):
        world = Agents(agent_of("a", CallTool("book")), keyed=keyed)
        ticket = world.do("a")
        world.step()  # done in the world, not yet reported
        world.crash(world.id("a"))
        world.finish()
        assert ticket.result.text == "[{'did': 'book'}]"
        assert list(keys(world).values()) == [times]


def test_keys_are_those_of_the_task_and_not_of_the_try() -> None:
    begun = {f.key for kind in ("desk", "clerk") for f in WHOLE.facts(kind, StepBegun) if f.call}
    assert begun == set(keys(WHOLE)) and "t1/desk/a-1:t-1.3" in begun


def test_a_host_that_takes_over_goes_on_from_a_snapshot_too() -> None:
    world = Agents(Desk, Clerk, tool=tool)
    ticket = world.do("desk")
    for _ in range(9):  # a step, on average, takes two moves
        for _ in range(3):
            world.step()
        for id in world.journal:
            world.keep(id)
        world.crash(world.id("desk"))
        world.crash(world.id("clerk"))
    world.finish()
    assert ticket.result.text == "book: About Why? (3).!" and keys(world) == keys(WHOLE)


def test_a_pause_is_not_begun_again_by_a_crash() -> None:
    world = Agents(agent_of("a", Pause(60.0)))
    ticket = world.do("a")
    (remind,) = world.reminders.values()
    world.crash(world.id("a"))
    assert list(world.reminders.values()) == [remind]
    assert world.finish() and ticket.result.text == "[None]"


# -- plans that changed


def changed(before: type[Agent], after: type[Agent]) -> tuple[Agents, object]:
    """A task that was begun by one release and is taken over by another."""
    world = Agents(before)
    ticket = world.do(before.kind.name)
    world.step()
    world.step()
    world.codecs = Agents(after).codecs
    world.crash(world.id(before.kind.name))
    world.finish()
    check(world)
    return world, ticket.result


@pytest.mark.parametrize(
    ("after", "now"),
    [
        ([CallTool("x", {"n": 2}), CallTool("y")], "CallTool x"),
        ([Publish("first")], "Publish"),
        ([Gather(CallTool("x"), CallTool("y"))], "CallTool x"),
        ([Gather(CallTool("x"), CallTool("y"), CallTool("z"))], "more at once"),
        ([], "at its end"),
    ],
)
def test_a_plan_that_wants_something_else_now_is_found_out(after: list[object], now: str) -> None:
    world, result = changed(agent_of("a", CallTool("x"), CallTool("y")), agent_of("a", *after))
    problem = problem_of(result)
    assert (
        problem.type.endswith("plan-changed")
        and "Step 1 of the task 't-1' was CallTool x (" in problem.detail
    )
    assert now in problem.detail
    steps = world.facts("a", StepDone)
    assert [step.n for step in steps] == [1, 2], "the call that was in flight has its outcome in the record"


def test_a_plan_may_change_where_no_task_has_come_yet() -> None:
    _, result = changed(
        agent_of("a", CallTool("x"), CallTool("y")),
        agent_of("a", CallTool("x"), CallTool("y"), CallTool("z")),
    )
    assert result.text == "[{'did': 'x'}, {'did': 'y'}, {'did': 'z'}]"  # type: ignore[attr-defined]


# -- nobody waits any more


def test_what_nobody_waits_for_is_cancelled_down_the_chain() -> None:
    world = Agents(Desk, Clerk, tool=tool)
    ticket = world.do("desk")
    world.step()
    assert [running.actor.kind for running in world.running] == ["clerk"]
    world.leave(ticket)
    assert not world.running
    assert world.facts("desk")[-1] == TaskCancelled(task="t-1")
    assert world.facts("clerk")[-1] == TaskCancelled(task="t-1.2")
    check(world)


def test_a_task_that_waits_its_turn_is_cancelled_without_a_step() -> None:
    world = Agents(Clerk)
    first, second = world.do("clerk"), world.do("clerk", task="t-2")
    world.leave(second)
    world.finish()
    assert isinstance(first.result, Reply)
    assert [f.task for f in world.facts("clerk", TaskCancelled)] == ["t-2"]
    assert {f.task for f in world.facts("clerk", StepBegun)} == {"t-1"}


def test_a_call_in_flight_has_its_true_outcome_before_the_task_is_cancelled() -> None:
    world = Agents(agent_of("a", Gather(CallTool("book"), Pause(9.0), Search("bank", "x"))))
    ticket, other = world.do("a"), world.do("a", task="t-2")
    world.leave(ticket)
    assert world.let_go == ["t-1.1"] and len(world.running) == 1 and not world.reminders
    assert not world.facts("a", TaskCancelled)
    world.step()
    world.step()
    kinds = [type(fact) for fact in world.facts("a")]
    assert kinds.index(TaskStopping) < kinds.index(StepDone) < kinds.index(TaskCancelled)
    assert world.facts("a", StepDone)[0].outcome
    assert world.finish() and other.result, "and the next one begins"


def test_a_call_whose_host_died_while_it_was_cancelled_is_asked_after() -> None:
    world = Agents(agent_of("a", CallTool("book"), CallTool("never")))
    world.leave(world.do("a"))
    world.crash(world.id("a"))
    (running,) = world.running
    assert isinstance(running.effect, Perform) and running.effect.last
    world.finish()
    assert [f.what for f in world.facts("a", StepBegun)] == ["CallTool book"]
    assert world.facts("a")[-1] == TaskCancelled(task="t-1")


def test_a_cancelled_task_that_is_asked_for_again_goes_on_where_it_was() -> None:
    world = Agents(Desk, Clerk, tool=tool)
    ticket = world.do("desk")
    for _ in range(8):
        world.step()
    world.leave(ticket)
    again = world.do("desk")
    assert world.finish() and again.result.text == "book: About Why? (3).!"
    assert world.facts("desk", TaskResumed) and keys(world) == keys(WHOLE)
    check(world)


def test_a_pause_that_was_cancelled_is_begun_again() -> None:
    world = Agents(agent_of("a", Pause(60.0)))
    world.leave(world.do("a"))
    assert not world.reminders
    again = world.do("a")
    assert world.reminders and world.finish() and again.result.text == "[None]"


def test_a_call_that_was_let_go_is_made_when_its_task_goes_on() -> None:
    world = Agents(agent_of("a", CallTool("book")))
    world.leave(world.do("a"))
    again = world.do("a")  # before the call has ended
    (running,) = world.running
    problem = Unavailable("Given up.").problem()
    running.came = Came(step="t-1.1", problem=problem, let_go=True)
    assert world.finish() and again.result.text == "[{'did': 'book'}]"
    assert len(world.facts("a", TaskResumed)) == 2 and not world.facts("a", TaskCancelled)
    check(world)


def test_who_comes_back_and_leaves_again_leaves_nothing_behind() -> None:
    world = Agents(agent_of("a", CallTool("book")))
    world.leave(world.do("a"))
    world.leave(world.do("a"))
    world.finish()
    assert world.facts("a")[-1] == TaskCancelled(task="t-1")
    assert not world.agent(world.id("a")).unfinished


MOVES = st.lists(st.sampled_from(["step", "step", "step", "die", "leave", "ask"]), max_size=40)


@settings(max_examples=200)
@given(MOVES, st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_whatever_happens_every_call_has_an_outcome_and_every_key_one_effect(
    moves: list[str], choices: list[int]
) -> None:
    world = Agents(Desk, Clerk, tool=tool)
    tickets = [world.do("desk")]
    for move, at in zip(moves, choices, strict=False):
        match move:
            case "step":
                world.step(at)
            case "die":
                world.crash(world.id(["desk", "clerk"][at % 2]))
            case "leave":
                world.leave(tickets[-1])
            case _:
                tickets.append(world.do("desk"))
        check(world)
    tickets.append(world.do("desk"))
    world.finish()
    check(world)
    assert tickets[-1].result.text == "book: About Why? (3).!"
    assert keys(world) == keys(WHOLE)
    for kind in ("desk", "clerk"):
        called = {(f.task, f.n) for f in world.facts(kind, StepBegun) if f.call}
        assert called == {(f.task, f.n) for f in world.facts(kind, StepDone)} & called
        assert not world.agent(world.id(kind)).unfinished
    assert len(world.facts("desk", TaskDone)) == 1


# -- dead letters


def test_a_call_that_was_given_up_can_be_made_again_under_its_key() -> None:
    world = Agents(agent_of("a", CallTool("book")))
    redo = Redo(key="t1/a/a-1:t-1.1", call=CallTool("book", {"n": 1}))
    first, second = world.ask("a", redo), world.ask("a", redo)
    world.step()
    world.crash(world.id("a"))
    world.finish()
    assert first.result == second.result == {"did": "book"}
    assert world.done_by_tools == [(redo.key, redo.call)]
    assert not world.agent(world.id("a")).unfinished


def test_a_call_that_fails_again_says_so() -> None:
    world = Agents(agent_of("a"), tool=tool)
    ticket = world.ask("a", Redo(key="k/1", call=CallTool("broken")))
    world.finish()
    assert problem_of(ticket.result).detail == "There is nothing."
    tickets = [world.ask("a", Redo(key=f"k/{n}", call=CallTool("x"))) for n in range(REDOING_MAX + 1)]
    assert problem_of(tickets[-1].result).retry_after_s


def test_an_agent_hears_nothing_else() -> None:
    world = Agents(Clerk)
    with pytest.raises(TypeError):
        world.agent(world.id("clerk")).on(object())
    assert world.agent(world.id("clerk")).on(Woken()) == ()
