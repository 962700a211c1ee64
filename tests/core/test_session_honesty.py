"""What a session says when it knows, when it doesn't, and when it is not sure."""

from __future__ import annotations

import pytest

from flotilla.core import signals
from flotilla.core.errors import FlotillaError
from flotilla.core.facts import MessageAccepted
from flotilla.core.policy import intents
from flotilla.core.signals import Generate
from tests.build import CITED, MADE_UP, QUESTION, World, check, hit, state


@pytest.mark.parametrize("hits", [(), (hit(similarity=0.1),), (hit(similarity=-0.2),)])
def test_without_a_close_passage_it_says_that_it_does_not_know_and_offers_a_person(hits: tuple) -> None:
    world = World(hits=hits).open()
    world.post()
    world.finish()
    done = world.completed()
    assert done.text == intents.DONT_KNOW.text and done.offers_person
    assert not done.citations and not done.model
    check(world)


def test_a_cited_reply_stands_as_it_was_made() -> None:
    world = World().open()
    world.post()
    world.finish()
    done = world.completed()
    assert done.text == CITED and done.citations and not done.offers_person and done.confidence == 1.0


@pytest.mark.parametrize(
    ("reply", "closing"),
    [(MADE_UP, intents.NOT_SURE), ("", intents.DONT_KNOW.text), (" \n", intents.DONT_KNOW.text)],
)
def test_a_reply_that_nothing_supports_says_so_behind_what_was_said(reply: str, closing: str) -> None:
    world = World(reply=reply).open()
    world.post()
    world.finish()
    done = world.completed()
    assert done.text == reply + closing and done.offers_person and not done.citations
    check(world)


def test_the_history_of_a_conversation_is_bounded_and_reaches_the_model() -> None:
    world = World().open()
    for n in range(9):
        world.post(f"{QUESTION} {n}", id=f"c-{n}")
        world.finish()
    prompts = [e.prompt for e in world.performed if isinstance(e, Generate)]
    assert len(world.session.history) == 8
    assert [m.text for m in prompts[-1].messages if CITED in m.text][-1:] == [CITED]


def test_a_refused_signal_leaves_no_trace() -> None:
    world = World().open()
    before = state(world.session)
    for bad in (signals.Post(id="c", text=" "), signals.Post(id="", text="x")):
        with pytest.raises(FlotillaError):
            world.feed(bad)
    assert state(world.session) == before
    assert not any(isinstance(fact, MessageAccepted) for fact in world.facts)


def test_an_agent_without_knowledge_answers_from_its_model_and_claims_no_source() -> None:
    world = World(reply=MADE_UP, hits=()).open("chat")
    world.post()
    world.finish()
    done = world.completed()
    assert done.text == MADE_UP and not done.citations and not done.offers_person and done.model == "m@1"
    (prompt,) = [effect.prompt for effect in world.performed if isinstance(effect, Generate)]
    assert QUESTION in prompt.messages[-1].text and "text" not in prompt.messages[0].text.lower()
    check(world)


def test_an_agent_without_knowledge_goes_on_with_its_reply_after_a_crash() -> None:
    world = World(reply=MADE_UP, hits=()).open("chat")
    world.post()
    world.until_text()
    world.crash()
    world.finish()
    assert world.completed().text == MADE_UP
    check(world)
