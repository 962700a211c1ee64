"""An agent that a team answers for: asked once for each task, shown and cited like any reply."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flotilla.core import signals
from flotilla.core.agents import AGENTS, Agent
from flotilla.core.effects import Answer, Answered, Ask, Effect, Record, Stop
from flotilla.core.facts import ReplyCompleted, ReplyFailed, ReplyInterrupted, ReplyStarted
from flotilla.core.flow import Do, Done
from flotilla.core.generation import Usage
from flotilla.core.ids import ActorId
from flotilla.core.policy import intents
from flotilla.core.signals import Retrieve, Seal
from tests.build import CITED, MADE_UP, QUESTION, World, check, passage, problem

TEAM = Agent(name="team", persona="", greeting="Hi.", collection="bank", asks="router")
FIRST = "t_1-2"


@pytest.fixture(autouse=True)
def team(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(AGENTS, "team", TEAM)
    yield


def kinds(effects: tuple[Effect, ...]) -> list[type]:
    return [type(effect) for effect in effects]


def asked(world: World) -> list[Ask]:
    return [effect for effect in world.performed if isinstance(effect, Ask)]


def asking() -> World:
    world = World().open("team")
    world.post()
    return world


def test_the_team_is_asked_once_it_is_in_the_record() -> None:
    world = World().open("team")
    assert kinds(world.post()) == [Record, Answer, Record, Ask]
    assert world.facts[-1] == ReplyStarted(turn=FIRST, model="team:router")
    (ask,) = asked(world)
    assert (ask.key, ask.to) == (FIRST, ActorId("t1", "router", "s_1"))
    assert ask.message == Do(task=FIRST, question=QUESTION)


def test_the_teams_record_is_sealed_for_the_customer() -> None:
    world = World()
    world.feed(signals.Open(agent="team", customer="zoe"))
    world.post()
    assert asked(world)[0].message.person == "zoe" == world.session.person


def test_the_teams_answer_is_shown_cited_and_completed() -> None:
    world = asking()
    usage = Usage(prompt_tokens=5, completion_tokens=3)
    world.work = None
    world.feed(Answered(key=FIRST, value=Done(text=CITED, documents=(passage(),), usage=usage)))
    done = world.completed()
    assert (done.text, done.model, done.usage) == (CITED, "team:router", usage)
    assert done.citations and not done.offers_person
    check(world)


@pytest.mark.parametrize(("text", "closing"), [(MADE_UP, intents.NOT_SURE), ("", intents.DONT_KNOW.text)])
def test_an_answer_that_nothing_supports_says_so(text: str, closing: str) -> None:
    world = asking()
    world.work = None
    world.feed(Answered(key=FIRST, value=Done(text=text)))
    assert world.completed().text == text + closing and world.completed().offers_person
    check(world)


@pytest.mark.parametrize("answer", [{"problem": problem()}, {}, {"value": {"text": "x"}}])
def test_without_an_answer_the_reply_fails_and_the_next_turn_begins(answer: dict) -> None:
    world = asking()
    world.post(id="c-2")
    world.work = None
    assert kinds(world.feed(Answered(key=FIRST, **answer))) == [Record, Record, Ask]
    assert isinstance(world.ends()[0], ReplyFailed)
    check(world)


def test_fixed_words_need_no_team() -> None:
    world = World().open("team")
    world.post("Hello")
    assert world.completed().text == "Hi." and not asked(world)


# -- whatever dies, whoever interrupts


@pytest.mark.parametrize("reply", [CITED, MADE_UP, ""])
def test_a_consulted_turn_completes_once_wherever_its_host_dies(reply: str) -> None:
    whole = World(reply=reply).open("team")
    whole.post()
    effects = whole.session.on(whole.next_signal())
    for performed in range(len(effects) + 1):
        world = World(reply=reply).open("team")
        world.post()
        world.step(performed)
        world.crash()
        world.finish()
        assert isinstance(world.completed(), ReplyCompleted)
        assert world.completed().citations == whole_of(reply).citations
        check(world)


def whole_of(reply: str) -> ReplyCompleted:
    world = World(reply=reply).open("team")
    world.post()
    return world.finish().completed()


def test_a_new_host_asks_again_by_the_same_name_and_says_nothing_twice() -> None:
    world = asking()
    world.shown[FIRST] = CITED[:12]
    world.crash()
    first, second = asked(world)
    assert first == second
    world.finish()
    assert world.completed().text == CITED == world.shown[FIRST]


def test_a_turn_goes_to_the_team_that_it_was_started_with() -> None:
    world = asking()
    AGENTS["team"] = AGENTS["bank"]
    world.crash()
    assert [ask.to.kind for ask in asked(world)] == ["router", "router"]
    world.finish()
    assert world.completed().model == "team:router"


@pytest.mark.parametrize("message", [signals.Interrupt(), signals.Accept(person="Ann")])
def test_a_stop_or_a_takeover_takes_the_question_back(message: signals.Ask) -> None:
    world = asking()
    assert kinds(world.feed(message)) == [Stop, Seal, Record, Answer]
    assert world.ends() == [ReplyInterrupted(turn=FIRST, text="")]
    (late,) = world.late
    assert world.session.on(late) == ()
    check(world)


def test_a_merged_message_is_another_task_of_the_same_turn() -> None:
    world = asking()
    assert kinds(world.post("And Gold?", id="c-2", way="merge")) == [Stop, Record, Answer, Record, Ask]
    first, second = asked(world)
    assert first.message.task != second.message.task
    assert second.message.question == f"{QUESTION}\nAnd Gold?"
    assert world.session.on(world.late[0]) == ()
    world.finish()
    assert world.completed().turn == FIRST and not any(isinstance(e, Retrieve) for e in world.performed)
    check(world)
