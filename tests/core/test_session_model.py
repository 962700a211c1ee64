"""Which version of a model answers: chosen when the turn begins, kept over crashes, told in the end."""

from __future__ import annotations

import msgspec

from flotilla.core import signals
from flotilla.core.effects import Record, Woken
from flotilla.core.facts import ReplyStarted
from flotilla.core.generation import Origin, Usage
from tests.build import ME, World, fold


def asked() -> World:
    """With the reply to a first message chosen, and not begun."""
    world = World().open()
    world.post()
    world.step()
    return world


def chosen_anew(world: World, model: str) -> None:
    """As after a message that came to the turn."""
    turn = world.session.turn
    assert turn is not None and turn.started is not None
    world.session.apply(msgspec.structs.replace(turn.started, model=model))


def test_the_version_that_was_chosen_makes_the_reply_and_is_told() -> None:
    world = asked()
    work = world.work
    assert isinstance(work, signals.Generate)
    assert work.prompt.model == "m@1"
    assert work.prompt.origin == Origin(tenant=ME.tenant, conversation=ME.name, agent="bank")
    world.finish()
    assert world.completed().model == "m@1"


def test_a_reply_stays_with_its_version_over_a_crash() -> None:
    world = World().open()
    world.post()
    world.until_text()
    world.crash()
    work = world.work
    assert isinstance(work, signals.Generate)
    assert work.prompt.said and work.prompt.model == "m@1"
    assert [fact.model for fact in world.facts if isinstance(fact, ReplyStarted)] == ["m@1"]


def test_whoever_began_instead_is_in_the_record_before_a_word_is_shown() -> None:
    """So whoever goes on with it after a crash asks that one, and not the one that was chosen."""
    world = asked()
    turn = world.session.turn
    assert turn is not None
    said = signals.Streamed(turn=turn.id, run=turn.run, text="The", model="plain@1")
    assert [type(effect) for effect in world.feed(said)] == [signals.Unshown, Record, signals.Say]
    world.feed(msgspec.structs.replace(said, text=" fee", model=""))
    assert [fact.model for fact in world.facts if isinstance(fact, ReplyStarted)] == ["m@1", "plain@1"]
    world.crash()
    work = world.work
    assert isinstance(work, signals.Generate)
    assert (work.prompt.said, work.prompt.model) == ("The fee", "plain@1")


def test_no_engine_says_what_the_hot_log_would_take_for_a_claim() -> None:
    world = asked()
    turn = world.session.turn
    assert turn is not None
    for text in ("\x1eother@1", "\x1eThe", "\x1e"):
        world.feed(signals.Streamed(turn=turn.id, run=turn.run, text=text))
    assert world.session.said == "other@1The"
    world.finish()
    assert "\x1e" not in world.completed().text


def test_whoever_has_claimed_a_reply_goes_on_with_it_though_its_host_died_before_the_record() -> None:
    world = asked()
    world.work = None
    world.session = fold(world.facts, world.limits)
    effects = world.feed(Woken(said="The", model="plain@1"))
    work = world.work
    assert [type(effect) for effect in effects] == [Record, signals.Generate] and isinstance(
        work, signals.Generate
    )
    assert (work.prompt.said, work.prompt.model) == ("The", "plain@1")
    assert [fact.model for fact in world.facts if isinstance(fact, ReplyStarted)] == ["m@1", "plain@1"]


def begin(world: World, model: str) -> list[type]:
    turn = world.session.turn
    assert turn is not None
    said = signals.Streamed(turn=turn.id, run=turn.run, text="The", model=model)
    return [type(effect) for effect in world.feed(said)]


def test_a_claim_that_nobody_speaks_for_is_made_again_by_who_does() -> None:
    """The plain one has claimed, and then a message came to the turn, for which one was chosen anew."""
    for model, claims in (("m@1", [signals.Unshown, signals.Say]), ("plain@1", [Record, signals.Say])):
        world = asked()
        world.work = None
        world.feed(Woken(model="plain@1"))
        assert begin(world, model) == claims


def test_words_that_nobody_has_claimed_are_of_who_was_chosen_first() -> None:
    """A message came to the turn, another version was chosen for both; and a host that the session had left has
    shown the first one's words."""
    world = asked()
    chosen_anew(world, "m@2")
    world.work = None
    world.feed(Woken(said="The"))
    work = world.work
    assert isinstance(work, signals.Generate)
    assert (work.prompt.said, work.prompt.model) == ("The", "m@1")


def test_another_version_that_was_chosen_for_the_same_turn_claims_it() -> None:
    world = asked()
    chosen_anew(world, "m@2")
    assert begin(world, "m@2") == [signals.Unshown, signals.Say]


def test_whoever_stood_in_is_told_as_the_model() -> None:
    world = World().open()
    world.post()
    world.until_text()
    turn = world.session.turn
    assert turn is not None
    world.feed(signals.Generated(turn=turn.id, run=turn.run, usage=Usage(), model="plain@1"))
    assert world.completed().model == "plain@1"


def test_a_session_can_be_pinned_to_a_version() -> None:
    world = World()
    world.feed(signals.Open(agent="bank", model="m@2"))
    assert world.session.model == "m@2"
    world.post()
    world.crash()
    assert world.session.model == "m@2"


def test_an_agent_without_a_wish_takes_the_default() -> None:
    assert World().open().session.model == ""
