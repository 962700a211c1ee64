"""A person takes a conversation over: the agent is silent at once, and until it is given back."""

from __future__ import annotations

import pytest

from flotilla.core import signals
from flotilla.core.effects import Answer, Effect, Message, Record, Stop
from flotilla.core.errors import Conflict, FlotillaError, LimitReached, Refused
from flotilla.core.facts import (
    HandoffAccepted,
    HandoffRequested,
    HandoffReturned,
    MessageAccepted,
    MessageSent,
    NoteAdded,
    ReplyCompleted,
    ReplyInterrupted,
)
from flotilla.core.limits import Limits
from flotilla.core.signals import Accept, Accepted, Generate, Note, RequestPerson, Return, Seal, Speak
from flotilla.views import events
from tests.build import QUESTION, World, check, state

HELLO = Speak(person="Ann", id="p-1", text="Hello, this is Ann.")
SECRET = Note(person="Ann", id="n-1", text="The customer is angry.")


def kinds(effects: tuple[Effect, ...]) -> list[type]:
    return [type(effect) for effect in effects]


def talking() -> World:
    world = World().open()
    world.post(id="c-1")
    return world.until_text()


def taken() -> World:
    world = World().open()
    world.accept("Ann")
    return world


# -- accepting


def test_a_takeover_stops_seals_and_records_before_it_is_answered() -> None:
    world = talking()
    said = world.session.said
    assert kinds(world.accept("Ann")) == [Stop, Seal, Record, Answer]
    assert world.facts[-2:] == [ReplyInterrupted(turn="t_1-2", text=said), HandoffAccepted(person="Ann")]
    assert (world.answers[-1].handoff, world.answers[-1].person) == ("accepted", "Ann")
    assert not world.session.unfinished
    check(world)


def test_a_takeover_ends_the_turns_that_wait_without_a_word() -> None:
    world = talking()
    world.post(id="c-2")
    world.post(id="c-3", way="merge")
    said = world.session.said
    world.accept()
    assert [end.text for end in world.ends()] == [said, ""] and world.turns() == ["t_1-2", "t_1-4"]
    check(world)


def test_a_takeover_of_a_silent_agent_is_one_fact() -> None:
    world = World().open()
    assert kinds(world.accept()) == [Record, Answer]
    assert world.facts[1:] == [HandoffAccepted(person="Ann")]


def test_accepting_twice_is_accepting_once() -> None:
    world = taken()
    assert kinds(world.accept("Ann")) == [Answer] and world.session.seq == 2


def test_another_person_is_told_who_has_the_session() -> None:
    world = taken()
    with pytest.raises(Conflict) as caught:
        world.accept("Bob")
    assert "Ann" in str(caught.value) and world.session.taken_by == "Ann"


def test_late_reports_of_the_silenced_agent_are_ignored() -> None:
    world = talking()
    world.accept()
    (late,) = world.late
    assert world.session.on(late) == () and world.session.said == ""


@pytest.mark.parametrize("performed", range(5))
def test_no_word_of_the_agent_comes_behind_a_takeover_wherever_its_host_dies(performed: int) -> None:
    world = talking()
    world.post(id="c-2")
    said = world.session.said
    world.feed(Accept(person="Ann"), performed)
    world.crash()
    world.accept("Ann")
    shown = dict(world.shown)
    assert not world.finish().work and world.shown == shown
    assert world.session.taken_by == "Ann" and len(world.ends()) == 2
    assert world.ends()[0].text == said
    check(world)


# -- while it is taken


def test_a_customers_message_is_recorded_and_starts_nothing() -> None:
    world = taken()
    assert kinds(world.post(id="c-1", way="reject")) == [Record, Answer]
    assert world.facts[-1] == MessageAccepted(turn="", id="c-1", text=QUESTION)
    assert world.answers[-1] == Accepted(seq=3, turn="")
    assert kinds(world.post(id="c-1")) == [Answer] and world.answers[-1].again
    assert not world.session.unfinished
    world.crash()
    assert world.work is None
    check(world)


def test_an_interrupt_finds_nothing_to_stop() -> None:
    world = taken()
    world.feed(signals.Interrupt())
    assert world.answers[-1] == signals.Interrupted(turn=None)


def test_a_person_speaks_once_under_each_id() -> None:
    world = taken()
    assert kinds(world.feed(HELLO)) == [Record, Answer]
    assert world.facts[-1] == MessageSent(by="Ann", id="p-1", text="Hello, this is Ann.")
    world.crash()
    assert kinds(world.feed(HELLO)) == [Answer]
    assert world.answers[-1] == Accepted(seq=3, turn="", again=True)
    check(world)


@pytest.mark.parametrize(
    "other",
    [
        Speak(person="Ann", id="p-1", text="Something else"),
        Speak(person="Bob", id="p-1", text=HELLO.text),
        Note(person="Ann", id="p-1", text=HELLO.text),
    ],
    ids=["text", "person", "note"],
)
def test_an_id_stands_for_one_message_of_one_person(other: Speak | Note) -> None:
    world = taken()
    world.feed(HELLO)
    with pytest.raises(Conflict) as caught:
        world.feed(other)
    assert caught.value.field == "id" and world.session.seq == 3


def test_only_the_person_who_has_it_may_speak() -> None:
    with pytest.raises(Conflict):
        World().open().feed(HELLO)
    with pytest.raises(Conflict) as caught:
        taken().feed(Speak(person="Bob", id="p-2", text="Hi"))
    assert "Ann" in str(caught.value)


def test_a_note_may_be_added_at_any_time_and_disturbs_nothing() -> None:
    world = talking()
    assert kinds(world.feed(SECRET)) == [Record, Answer]
    assert world.facts[-1] == NoteAdded(by="Ann", id="n-1", text=SECRET.text)
    assert kinds(world.feed(SECRET)) == [Answer]
    world.finish()
    assert isinstance(world.ends()[0], ReplyCompleted)
    check(world)


def test_a_note_reaches_no_model() -> None:
    world = World().open()
    world.feed(SECRET)
    world.post()
    world.finish()
    prompts = [effect.prompt for effect in world.performed if isinstance(effect, Generate)]
    assert prompts and all(SECRET.text not in message.text for p in prompts for message in p.messages)


def test_the_customers_event_stream_leaves_notes_out() -> None:
    assert NoteAdded.__struct_config__.tag in events.NOT_FOR_VISITORS
    assert MessageSent.__struct_config__.tag not in events.NOT_FOR_VISITORS


def test_what_persons_write_counts_towards_what_a_session_holds() -> None:
    world = World(limits=Limits(messages_per_session_max=2)).open()
    world.feed(SECRET)
    world.post()
    with pytest.raises(LimitReached):
        world.feed(Note(person="Ann", id="n-2", text="x"))


# -- giving it back


def test_behind_a_return_the_agent_answers_and_knows_what_was_said() -> None:
    world = taken()
    world.post("My card is lost.", id="c-1")
    world.feed(HELLO)
    assert kinds(world.feed(Return(person="Ann"))) == [Record, Answer]
    assert world.facts[-1] == HandoffReturned(person="Ann") and world.answers[-1].handoff == ""
    world.post(id="c-2")
    world.finish()
    prompt = next(effect.prompt for effect in world.performed if isinstance(effect, Generate))
    assert [(m.role, m.text) for m in prompt.messages[1:3]] == [
        ("user", "My card is lost."),
        ("assistant", HELLO.text),
    ]
    assert world.completed().text
    check(world)


def test_only_the_person_who_has_it_gives_it_back_and_once() -> None:
    world = taken()
    with pytest.raises(Conflict):
        world.feed(Return(person="Bob"))
    world.feed(Return(person="Ann"))
    assert kinds(world.feed(Return(person="Ann"))) == [Answer]
    world.accept("Bob")
    assert world.session.taken_by == "Bob"


# -- asking for a person


def test_a_person_is_asked_for_once_until_one_comes() -> None:
    world = World().open()
    world.feed(RequestPerson(reason="I am stuck."))
    assert world.facts[-1] == HandoffRequested(reason="I am stuck.")
    assert world.answers[-1].handoff == "requested"
    assert kinds(world.feed(RequestPerson(reason="Again"))) == [Answer]
    world.accept()
    assert kinds(world.feed(RequestPerson())) == [Answer] and world.answers[-1].handoff == "accepted"
    world.feed(Return(person="Ann"))
    assert kinds(world.feed(RequestPerson())) == [Record, Answer]


def test_the_agent_goes_on_until_a_person_comes() -> None:
    world = talking()
    world.feed(RequestPerson())
    world.finish()
    assert isinstance(world.ends()[0], ReplyCompleted)
    check(world)


# -- refusals

HANDED = [RequestPerson(), Accept(person="Ann"), Return(person="Ann"), HELLO, SECRET]


@pytest.mark.parametrize("message", HANDED, ids=lambda message: type(message).__name__)
def test_a_closed_session_refuses_all(message: Message) -> None:
    world = taken()
    world.feed(signals.Close())
    before = state(world.session)
    with pytest.raises(Conflict) as caught:
        world.feed(message)
    assert "closed" in str(caught.value) and state(world.session) == before


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Accept(person=" "), "person"),
        (Accept(person="x" * 129), "person"),
        (Return(person=""), "person"),
        (Speak(person="Ann", id="a b", text="x"), "id"),
        (Speak(person="Ann", id="p", text=" "), "text"),
        (Note(person="", id="n", text="x"), "person"),
        (Note(person="Ann", id="", text="x"), "id"),
    ],
)
def test_what_is_wrong_is_refused_naming_the_field(message: Message, field: str) -> None:
    world = taken()
    before = state(world.session)
    with pytest.raises(FlotillaError) as caught:
        world.feed(message)
    assert isinstance(caught.value, Refused) and caught.value.field == field
    assert state(world.session) == before
