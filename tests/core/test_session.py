"""The conversation as a pure state machine: what it records, says and starts, and in which order."""

from __future__ import annotations

import msgspec
import pytest

from flotilla.core import signals
from flotilla.core.effects import Answer, Effect, Record, Signal, Stop
from flotilla.core.errors import Conflict, LimitReached, NotFound, Refused
from flotilla.core.facts import (
    HandoffRequested,
    ReplyCompleted,
    ReplyFailed,
    ReplyInterrupted,
    ReplyStarted,
    SessionClosed,
)
from flotilla.core.generation import Usage
from flotilla.core.limits import Limits
from flotilla.core.policy import intents
from flotilla.core.session import Session
from flotilla.core.signals import Generate, Retrieve, Say, Seal
from tests.build import MADE_UP, ME, QUESTION, World, check, hit, problem, state

FEW = Limits(pending_turns_max=2, messages_per_session_max=3)


def kinds(effects: tuple[Effect, ...]) -> list[type]:
    return [type(effect) for effect in effects]


# -- order of effects


def test_a_message_is_recorded_then_acknowledged_then_worked_on() -> None:
    world = World().open()
    assert kinds(world.post()) == [Record, Answer, Retrieve]
    assert world.answers[-1] == signals.Accepted(seq=2, turn="t_1-2")
    world.step()
    assert kinds(tuple(world.performed[-2:])) == [Record, Generate]


def test_a_reply_is_shown_before_its_end_is_recorded() -> None:
    world = World(reply=MADE_UP).open()
    world.post()
    world.finish()
    tail = kinds(tuple(world.performed))[-2:]
    assert tail == [Say, Record]
    check(world)


def test_a_record_says_whether_work_is_left() -> None:
    world = World().open()
    assert not world.performed[0].unfinished
    world.post()
    world.post(id="c-2")
    world.finish()
    flags = [effect.unfinished for effect in world.performed if isinstance(effect, Record)]
    assert flags[1:] == [True] * (len(flags) - 2) + [False]


def test_a_reply_in_fixed_words_is_recorded_as_started_before_it_is_shown() -> None:
    world = World().open()
    assert kinds(world.post("Hello!")) == [Record, Answer, Record, Say, Record]
    assert world.completed().text == world.session.agent.greeting
    check(world)


def test_a_wish_for_a_person_requests_a_handoff_once() -> None:
    world = World().open()
    world.post("I want to talk to a human")
    assert [type(f) for f in world.facts[2:]] == [ReplyStarted, HandoffRequested, ReplyCompleted]


# -- the same message again


def test_the_same_message_again_gets_the_first_answer_and_starts_nothing() -> None:
    world = World().open()
    world.post()
    first = world.answers[-1]
    for _ in range(2):  # while it runs, and after
        assert kinds(world.post()) == [Answer]
        assert world.answers[-1] == msgspec.structs.replace(first, again=True)
        world.finish()
    assert len(world.accepted()) == len(world.ends()) == 1


def test_the_same_id_with_another_text_is_a_conflict_and_changes_nothing() -> None:
    world = World().open()
    world.post()
    before = state(world.session)
    with pytest.raises(Conflict) as caught:
        world.post("Something else")
    assert caught.value.field == "id" and state(world.session) == before


def test_a_known_message_is_answered_after_a_crash_past_limits_and_after_the_close() -> None:
    world = World(limits=FEW).open()
    for n in range(3):
        world.post(id=f"c-{n}")
        world.finish()
    world.crash()
    world.feed(signals.Close())
    for n in range(3):
        assert kinds(world.post(id=f"c-{n}")) == [Answer]
    with pytest.raises(Conflict):
        world.post(id="c-new")


# -- refusals


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0\u3000", "\u2028"])
def test_a_blank_message_is_refused_naming_the_field(text: str) -> None:
    with pytest.raises(Refused) as caught:
        World().open().post(text)
    assert caught.value.field == "text"


@pytest.mark.parametrize("id", ["", "a b", "é", "x" * 129, "a\n", "a/b", "\0"])
def test_an_unfit_id_is_refused_naming_the_field(id: str) -> None:
    with pytest.raises(Refused) as caught:
        World().open().post(id=id)
    assert caught.value.field == "id"


def test_an_unknown_agent_is_not_found_and_nothing_is_opened() -> None:
    world = World()
    with pytest.raises(NotFound) as caught:
        world.open("nobody")
    assert caught.value.field == "agent" and "bank" in str(caught.value) and world.session.seq == 0


@pytest.mark.parametrize(
    "ask",
    [
        signals.Post(id="c", text="x"),
        signals.Interrupt(),
        signals.Close(),
        signals.Describe(),
        signals.RequestPerson(),
        signals.Accept(person="Ann"),
        signals.Return(person="Ann"),
        signals.Speak(person="Ann", id="p", text="x"),
        signals.Note(person="Ann", id="p", text="x"),
    ],
    ids=lambda ask: type(ask).__name__,
)
def test_an_unopened_session_is_not_found(ask: signals.Ask) -> None:
    with pytest.raises(NotFound):
        Session(id=ME).on(ask)


def test_opening_again_shows_the_session_as_it_is() -> None:
    world = World().open()
    assert kinds(world.feed(signals.Open(agent="flotilla"))) == [Answer]
    assert world.answers[-1].agent == "bank" and world.session.seq == 1


def test_past_the_limit_of_waiting_messages_there_is_a_clear_error_and_nothing_is_taken() -> None:
    world = World(limits=FEW).open()
    world.post(id="c-1")
    world.post(id="c-2")
    with pytest.raises(LimitReached) as caught:
        world.post(id="c-3")
    assert caught.value.retry_after_s and len(world.accepted()) == 2
    world.finish()
    world.post(id="c-3")
    world.finish()
    check(world)


def test_a_session_has_a_last_message() -> None:
    world = World(limits=FEW).open()
    for n in range(3):
        world.post(id=f"c-{n}")
        world.finish()
    with pytest.raises(LimitReached) as caught:
        world.post(id="c-4")
    assert "Open a new session" in str(caught.value)


# -- several messages, stops, the end


def test_messages_during_a_reply_wait_and_are_answered_in_order() -> None:
    world = World().open()
    for id in ("c-1", "c-2", "c-3"):
        world.post(id=id)
    assert sum(isinstance(effect, Retrieve) for effect in world.performed) == 1
    world.finish()
    assert [end.turn for end in world.ends()] == ["t_1-2", "t_1-3", "t_1-4"]
    check(world)


def test_waiting_messages_in_fixed_words_are_answered_one_by_one() -> None:
    world = World().open()
    for id, text in (("c-1", QUESTION), ("c-2", "Hello"), ("c-3", "Thanks!"), ("c-4", QUESTION)):
        world.post(text, id=id)
    world.finish()
    assert [end.text for end in world.ends()][1:3] == [world.session.agent.greeting, intents.WELCOME.text]
    check(world)


def test_an_interrupt_keeps_what_was_said_and_starts_the_next_turn() -> None:
    world = World().open()
    world.post(id="c-1")
    world.post(id="c-2")
    for _ in range(3):
        world.step()
    said = world.session.said
    assert kinds(world.feed(signals.Interrupt())) == [Stop, Seal, Record, Answer, Retrieve]
    assert said and world.ends() == [ReplyInterrupted(turn="t_1-2", text=said)]
    assert world.answers[-1] == signals.Interrupted(turn="t_1-2")
    world.finish()
    assert isinstance(world.ends()[1], ReplyCompleted)
    check(world)


def test_an_interrupt_with_nothing_running_says_so() -> None:
    world = World().open()
    world.feed(signals.Interrupt())
    assert world.answers[-1] == signals.Interrupted(turn=None) and len(world.facts) == 1


def test_a_close_ends_every_turn_in_one_record_and_starts_nothing() -> None:
    world = World().open()
    for id in ("c-1", "c-2", "c-3"):
        world.post(id=id)
    world.step()
    world.step()
    said = world.session.said
    assert kinds(world.feed(signals.Close())) == [Stop, Seal, Record, Answer]
    assert [end.text for end in world.ends()] == [said, "", ""] and world.facts[-1] == SessionClosed()
    assert world.answers[-1].state == "closed" and world.work is None
    assert kinds(world.feed(signals.Close())) == [Answer]
    check(world)


def test_a_failure_ends_the_turn_and_starts_the_next() -> None:
    world = World().open()
    world.post(id="c-1")
    world.post(id="c-2")
    world.work = None
    effects = world.feed(signals.Failed(turn="t_1-2", run="t_1-2", problem=problem()))
    assert kinds(effects) == [Record, Retrieve] and isinstance(world.ends()[0], ReplyFailed)
    check(world)


@pytest.mark.parametrize(
    "late",
    [
        signals.Found(turn="t_1-2", run="t_1-2", hits=(hit(),), retrieval_ms=1.0),
        signals.Streamed(turn="t_1-2", run="t_1-2", text="late"),
        signals.Generated(turn="t_1-2", run="t_1-2", usage=Usage()),
        signals.Failed(turn="t_1-2", run="t_1-2", problem=problem()),
    ],
    ids=lambda late: type(late).__name__,
)
def test_reports_of_stopped_work_are_ignored(late: Signal) -> None:
    world = World().open()
    world.post(id="c-1")
    world.step()
    world.feed(signals.Interrupt())
    assert world.session.on(late) == ()
    world.post(id="c-2")
    before = state(world.session)
    assert world.session.on(late) == () and state(world.session) == before


def test_a_search_that_ran_twice_starts_one_reply() -> None:
    world = World().open()
    world.post()
    found = world.next_signal()
    world.step()
    assert world.session.on(found) == ()
