"""An agent that has nothing to look up begins its reply in the record of the message."""

from __future__ import annotations

from flotilla.core import signals
from flotilla.core.effects import Answer, Record
from flotilla.core.facts import MessageAccepted, ReplyStarted
from tests.build import World


def post(id: str = "c-1", text: str = "What does a bank do?", model: str = "m@1") -> signals.Post:
    return signals.Post(id=id, text=text, model=model)


def opened(agent: str = "chat") -> World:
    world = World()
    world.feed(signals.Open(agent=agent))
    return world


def test_one_record_then_the_answer_then_the_model() -> None:
    world = opened()
    record, answer, work = world.session.on(post())
    assert isinstance(record, Record) and isinstance(answer, Answer)
    accepted, started = record.facts
    assert isinstance(accepted, MessageAccepted) and isinstance(started, ReplyStarted)
    assert started.model == "m@1" and not started.passages
    assert answer.value == signals.Accepted(seq=2, turn=accepted.turn)
    assert isinstance(work, signals.Generate) and work.prompt.model == "m@1"
    assert world.session.turns[0].started == started and world.session.turns[0].started_seq == 3


def test_the_turn_is_the_same_as_after_a_search() -> None:
    at_once, searched = opened().session, opened().session
    at_once.on(post())
    searched.on(post(model=""))
    turn = searched.turns[0]
    searched.on(signals.Found(turn=turn.id, run=turn.run, hits=(), retrieval_ms=0.0, model="m@1"))
    assert at_once.turns == searched.turns and at_once.seq == searched.seq


def test_while_nobody_knows_the_models_it_goes_the_long_way() -> None:
    effects = opened().session.on(post(model=""))
    assert any(isinstance(effect, signals.Retrieve) for effect in effects)


def test_who_has_documents_searches_them_whatever_the_message_says() -> None:
    effects = opened("bank").session.on(post())
    assert any(isinstance(effect, signals.Retrieve) for effect in effects)


def test_a_message_behind_another_waits_for_its_turn() -> None:
    world = opened()
    world.session.on(post())
    record, answer = world.session.on(post("c-2"))
    assert isinstance(record, Record) and len(record.facts) == 1 and isinstance(answer, Answer)


def test_it_goes_on_from_the_record_after_a_crash() -> None:
    world = opened()
    world.feed(post())
    world.crash()
    work = world.work
    assert isinstance(work, signals.Generate) and work.prompt.model == "m@1"
