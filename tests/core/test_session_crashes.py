"""A conversation that loses its host at any moment: nothing lost, doubled, reordered or contradicted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla.core import signals
from flotilla.core.effects import Woken
from flotilla.core.facts import ReplyCompleted
from flotilla.core.policy import intents
from tests.build import CITED, FEES, MADE_UP, QUESTION, World, check, hit

REPLIES = {"cited": CITED, "made up": MADE_UP, "empty": "", "emoji": "👩‍👩‍👧 " + CITED}
TRAP = f"{FEES} Would you like to talk to a person? Call us."


def play(world: World, text: str, deaths: set[int]) -> None:
    """One turn; the host dies whenever the count of performed effects is in `deaths`."""
    deaths = set(deaths)

    def feed(send: object) -> None:
        room = [at - len(world.performed) for at in sorted(deaths) if at >= len(world.performed)]
        before = len(world.performed)
        send(room[0] if room else None)  # type: ignore[operator]
        if room and len(world.performed) == before + room[0]:
            deaths.discard(len(world.performed))
            world.crash()

    feed(lambda most: world.feed(signals.Open(agent="bank"), most))
    if not world.facts:
        world.open()
    feed(lambda most: world.feed(signals.Post(id="c-1", text=text), most))
    if not world.accepted():  # never acknowledged: the client sends it again
        world.post(text)
    while world.work is not None:
        feed(world.step)


def effects_of(reply: str, text: str) -> int:
    world = World(reply=reply)
    play(world, text, set())
    return len(world.performed)


@pytest.mark.parametrize("text", [QUESTION, "Hello", "I want to talk to a person"])
@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_a_turn_completes_once_wherever_its_host_dies(reply: str, text: str) -> None:
    whole = World(reply=reply)
    play(whole, text, set())
    for death in range(effects_of(reply, text) + 1):
        world = World(reply=reply)
        play(world, text, {death})
        done = world.completed()
        check(world)
        assert done.text == whole.completed().text
        assert done.citations == whole.completed().citations
        assert done.offers_person == whole.completed().offers_person
        assert len(world.accepted()) == 1


@settings(max_examples=60)
@given(st.sets(st.integers(0, 30)), st.sampled_from(list(REPLIES.values())))
def test_a_turn_completes_once_however_often_its_hosts_die(deaths: set[int], reply: str) -> None:
    world = World(reply=reply)
    play(world, QUESTION, deaths)
    check(world)
    assert isinstance(world.ends()[0], ReplyCompleted)


@pytest.mark.parametrize("cut", range(len(CITED) + 1))
def test_a_reply_goes_on_from_what_was_seen(cut: int) -> None:
    world = World().open()
    world.post()
    world.step()
    turn = world.session.turn.id
    world.shown[turn] = CITED[:cut]
    world.crash()
    world.finish()
    assert world.completed().text == CITED and world.shown[turn] == CITED


def test_a_reply_that_was_whole_offers_the_person_that_it_has_spoken_of() -> None:
    """Its closing line was shown, its end not yet recorded, and a passage has the same words."""
    world = World(reply=MADE_UP, hits=(hit(TRAP),)).open()
    world.post()
    while not isinstance(world.next_signal(), signals.Generated):
        world.step()
    world.step(effects_max=1)  # it shows the closing line and records the end: the host dies in between
    world.crash()
    world.finish()
    done = world.completed()
    assert done.text == MADE_UP + intents.NOT_SURE
    assert done.offers_person and not done.citations


def test_waking_a_session_with_nothing_to_do_does_nothing() -> None:
    world = World()
    assert world.feed(Woken()) == ()
    world.open()
    assert world.feed(Woken()) == ()
