"""A message that comes while the agent still talks: it waits, interrupts, is merged or is refused."""

from __future__ import annotations

import pytest

from flotilla.core import signals
from flotilla.core.agents import AGENTS, WhileTalking
from flotilla.core.effects import Answer, Effect, Record, Stop
from flotilla.core.errors import LimitReached, Rejected
from flotilla.core.facts import (
    HandoffRequested,
    MessageAccepted,
    ReplyCompleted,
    ReplyInterrupted,
    ReplyStarted,
)
from flotilla.core.limits import Limits
from flotilla.core.signals import Accepted, Generate, Retrieve, Seal
from tests.build import QUESTION, World, check, fold, state

OTHER = "And the Gold card?"
FIRST = "t_1-2"


def kinds(effects: tuple[Effect, ...]) -> list[type]:
    return [type(effect) for effect in effects]


def talking(way: WhileTalking | None = None) -> World:
    """A world in which text of the first reply is on the customer's screen."""
    world = World().open()
    world.post(id="c-1")
    return world.until_text()


def retrieved(world: World) -> list[str]:
    return [effect.query for effect in world.performed if isinstance(effect, Retrieve)]


# -- which way


def test_an_agent_queues_unless_it_says_otherwise() -> None:
    world = talking()
    assert kinds(world.post(OTHER, id="c-2")) == [Record, Answer]
    world.finish()
    assert [end.turn for end in world.ends()] == [FIRST, "t_1-4"]
    check(world)


@pytest.mark.parametrize("way", ["queue", "interrupt", "merge", "reject"])
def test_the_way_of_the_agent_counts_and_that_of_the_message_overrules_it(
    way: WhileTalking, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = type(AGENTS["bank"])(
        name="bank", persona="", greeting="Hi.", collection="bank", while_talking="reject"
    )
    monkeypatch.setitem(AGENTS, "bank", changed)
    world = talking()
    with pytest.raises(Rejected):
        world.post(OTHER, id="c-2")
    if way != "reject":
        world.post(OTHER, id="c-2", way=way)
        assert len(world.accepted()) == 2


@pytest.mark.parametrize("way", ["queue", "interrupt", "merge", "reject"])
def test_a_message_to_an_agent_that_is_silent_begins_a_turn(way: WhileTalking) -> None:
    world = World().open()
    assert kinds(world.post(way=way)) == [Record, Answer, Retrieve]
    world.finish()
    assert kinds(world.post(id="c-2", way=way)) == [Record, Answer, Retrieve]
    world.finish()
    check(world)


@pytest.mark.parametrize("way", ["queue", "interrupt", "merge", "reject"])
def test_the_same_message_again_is_answered_as_the_first(way: WhileTalking) -> None:
    world = talking()
    assert kinds(world.post(id="c-1", way=way)) == [Answer]
    assert world.answers[-1] == Accepted(seq=2, turn=FIRST, again=True)


# -- reject


def test_a_rejected_message_leaves_no_trace_and_is_told_when_to_come_again() -> None:
    world = talking()
    before = state(world.session)
    with pytest.raises(Rejected) as caught:
        world.post(OTHER, id="c-2", way="reject")
    assert caught.value.status == 409 and caught.value.retry_after_s == 1.0 and caught.value.next
    assert state(world.session) == before
    world.finish()
    world.post(OTHER, id="c-2", way="reject")
    world.finish()
    assert len(world.ends()) == 2
    check(world)


# -- interrupt


def test_an_interrupting_message_ends_the_reply_in_the_record_that_accepts_it() -> None:
    world = talking()
    said = world.session.said
    effects = world.post(OTHER, id="c-2", way="interrupt")
    assert kinds(effects) == [Stop, Seal, Record, Answer, Retrieve]
    assert world.facts[-2:] == [
        ReplyInterrupted(turn=FIRST, text=said),
        MessageAccepted(turn="t_1-5", id="c-2", text=OTHER),
    ]
    assert world.answers[-1] == Accepted(seq=5, turn="t_1-5")
    world.finish()
    assert isinstance(world.ends()[-1], ReplyCompleted)
    check(world)


def test_messages_that_waited_go_before_one_that_interrupts() -> None:
    world = talking()
    world.post("Second?", id="c-2")
    world.post("Third?", id="c-3", way="interrupt")
    world.finish()
    assert retrieved(world) == [QUESTION, "Second?", "Third?"]
    check(world)


def test_an_interrupting_message_finds_room_where_the_stopped_one_was() -> None:
    world = World(limits=Limits(pending_turns_max=2)).open()
    world.post(id="c-1")
    world.post(id="c-2")
    with pytest.raises(LimitReached):
        world.post(id="c-3")
    world.post(id="c-3", way="interrupt")
    world.finish()
    check(world)


@pytest.mark.parametrize("performed", range(6))
def test_an_interrupting_message_survives_the_death_of_its_host(performed: int) -> None:
    """It is sent again until it is acknowledged, as clients do."""
    world = talking()
    said = world.session.said
    world.feed(signals.Post(id="c-2", text=OTHER, while_talking="interrupt"), performed)
    world.crash()
    world.post(OTHER, id="c-2", way="interrupt")
    world.finish()
    check(world)
    first, last = world.ends()
    assert isinstance(last, ReplyCompleted) and len(world.accepted()) == 2
    assert first == ReplyInterrupted(turn=FIRST, text=said)


# -- merge


def test_before_any_text_a_merged_message_begins_the_search_again_for_both() -> None:
    world = World().open()
    world.post(id="c-1")
    effects = world.post(OTHER, id="c-2", way="merge")
    assert kinds(effects) == [Stop, Record, Answer, Retrieve]
    assert retrieved(world) == [QUESTION, f"{QUESTION}\n{OTHER}"]
    assert world.answers[-1] == Accepted(seq=3, turn=FIRST)
    world.finish()
    assert len(world.accepted()) == 2 and world.completed().turn == FIRST
    check(world)


def test_a_merge_behind_the_start_of_a_reply_starts_it_again() -> None:
    world = World().open()
    world.post(id="c-1")
    world.step()
    assert isinstance(world.work, Generate)
    assert kinds(world.post(OTHER, id="c-2", way="merge")) == [Stop, Record, Answer, Retrieve]
    world.finish()
    assert sum(isinstance(fact, ReplyStarted) for fact in world.facts) == 2
    prompt = [e.prompt for e in world.performed if isinstance(e, Generate)][-1]
    assert QUESTION in prompt.messages[-1].text and OTHER in prompt.messages[-1].text
    assert world.completed().turn == FIRST
    check(world)


def test_what_the_stopped_work_still_reports_is_not_taken_for_the_new_ones() -> None:
    world = World().open()
    world.post(id="c-1")
    world.post("Second?", id="c-2", way="merge")  # stops a search
    world.step()
    world.post("Third?", id="c-3", way="merge")  # stops a generation
    assert len(world.late) == 2
    for late in world.late:
        assert world.session.on(late) == ()
    world.finish()
    check(world)


def test_behind_text_merged_messages_share_the_next_turn() -> None:
    world = talking()
    for n in (2, 3, 4):
        assert kinds(world.post(f"Question {n}?", id=f"c-{n}", way="merge")) == [Record, Answer]
    assert [fact.turn for fact in world.accepted()] == [FIRST, "t_1-4", "t_1-4", "t_1-4"]
    world.finish()
    assert retrieved(world)[1:] == ["Question 2?\nQuestion 3?\nQuestion 4?"]
    assert [end.turn for end in world.ends()] == [FIRST, "t_1-4"]
    check(world)


def test_a_merged_message_does_not_overtake_one_that_waits() -> None:
    world = World().open()
    world.post("First?", id="c-1")
    world.post("Second?", id="c-2", way="queue")
    world.post("Third?", id="c-3", way="merge")
    world.finish()
    assert retrieved(world) == ["First?", "Second?\nThird?"]
    check(world)


@pytest.mark.parametrize("first", [True, False])
def test_a_wish_for_a_person_is_not_lost_in_a_merge(first: bool) -> None:
    world = talking()
    texts = ["I want to talk to a person", OTHER]
    for n, text in enumerate(texts if first else texts[::-1]):
        world.post(text, id=f"w-{n}", way="merge")
    world.finish()
    assert any(isinstance(fact, HandoffRequested) for fact in world.facts) and len(world.ends()) == 3
    check(world)


def test_merged_messages_count_towards_what_may_wait() -> None:
    world = World(limits=Limits(pending_turns_max=3)).open()
    for n in range(3):
        world.post(f"Question {n}?", id=f"c-{n}", way="merge")
    with pytest.raises(LimitReached):
        world.post(OTHER, id="c-3", way="merge")
    world.finish()
    check(world)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("performed", range(5))
def test_a_merge_survives_the_death_of_its_host(performed: int, started: bool) -> None:
    world = World().open()
    world.post(id="c-1")
    if started:
        world.step()
    world.feed(signals.Post(id="c-2", text=OTHER, while_talking="merge"), performed)
    world.crash()
    world.post(OTHER, id="c-2", way="merge")
    world.finish()
    check(world)
    assert world.completed().turn == FIRST
    assert retrieved(world)[-1] == f"{QUESTION}\n{OTHER}"


def test_text_that_a_dead_host_showed_as_a_message_was_merged_stays_and_the_reply_joins_it() -> None:
    """The other host did not know yet that it was dead: its text is in the log before the new one's."""
    world = World(hits=()).open()
    world.post(id="c-1")
    world.post(OTHER, id="c-2", way="merge")
    world.shown[FIRST] = "The Silver"
    world.crash()
    world.finish()
    assert world.completed().text.startswith("The Silver\n\nI don't know")
    check(world)


def test_the_history_has_a_merged_turn_as_one_question() -> None:
    world = World().open()
    world.post("First?", id="c-1")
    world.post("Second?", id="c-2", way="merge")
    world.finish()
    assert [message.role for message in world.session.history] == ["user", "assistant"]
    assert world.session.history[0].text == "First?\nSecond?"
    assert state(fold(world.facts)) == state(world.session)
