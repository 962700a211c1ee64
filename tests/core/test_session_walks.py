"""Anything in any order: customers, persons, work, and hosts that die. The record keeps its promises.

A walk is made of its seed alone: `walk(SEED)` plays a failing one again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from flotilla.core import signals
from flotilla.core.agents import AGENTS, Agent
from flotilla.core.effects import Answered, Message
from flotilla.core.errors import FlotillaError
from flotilla.core.facts import MessageAccepted, MessageSent, NoteAdded
from flotilla.core.generation import Usage
from flotilla.core.journal import Stored
from flotilla.core.ledger import Codec
from flotilla.core.session import Session
from tests.build import CITED, MADE_UP, NOW, QUESTION, World, check, hit, problem, state

REPLIES = (CITED, MADE_UP, "", "👩‍👩‍👧 " + CITED)
TEAM = Agent(name="team", persona="", greeting="Hi.", collection="bank", asks="router", while_talking="merge")
CODEC = Codec(Session)


@pytest.fixture(autouse=True, scope="module")
def team() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(AGENTS, "team", TEAM)
        yield


PERSONS = ("Ann", "Ann", "Bob")
TEXTS = (QUESTION, QUESTION, "And Gold?", "Hello", "Talk to a person", " ")
WAYS = (None, "queue", "interrupt", "merge", "merge", "reject")
RUNS = ("t_1-2", "t_1-2.2", "t_1-3", "t_1-5", "t_1-5.2", "t_other")


def message(rng: random.Random) -> Message:
    """What a customer or a person may send at any time."""
    person, n = rng.choice(PERSONS), rng.randrange(12)
    post = signals.Post(id=f"c-{n}", text=rng.choice(TEXTS), while_talking=rng.choice(WAYS))
    others = (
        signals.Accept(person=person),
        signals.Return(person=person),
        signals.Return(person="Ann"),
        signals.Speak(person=person, id=f"p-{n}", text="Hi"),
        signals.Note(person=person, id=f"n-{n}", text="Hm"),
        signals.RequestPerson(reason="Stuck."),
        signals.Interrupt(),
        signals.Open(agent="bank"),
    )
    return post if rng.random() < 0.6 else rng.choice(others)


def stray(run: str) -> tuple[signals.Worked, ...]:
    return (
        signals.Found(turn="t", run=run, hits=(hit(),), retrieval_ms=1.0),
        signals.Streamed(turn="t", run=run, text="stray"),
        signals.Generated(turn="t", run=run, usage=Usage()),
        signals.Failed(turn="t", run=run, problem=problem()),
        Answered(key=run, problem=problem()),
    )


def ask(world: World, message: Message, effects_max: int | None = None) -> None:
    before = state(world.session)
    try:
        world.feed(message, effects_max)
    except FlotillaError:
        assert state(world.session) == before, "a refused signal leaves no trace"


def fail(world: World) -> None:
    turn = world.session.turn
    if turn is not None:
        world.work = None
        world.feed(signals.Failed(turn=turn.id, run=turn.run, problem=problem()))


def move(world: World, rng: random.Random) -> None:
    match rng.choice(("ask", "ask", "ask", "step", "step", "step", "die", "die at an ask", "fail", "stray")):
        case "ask":
            ask(world, message(rng))
        case "step":
            world.step()
        case "die":
            world.step(effects_max=rng.randrange(6))
            world.crash()
        case "die at an ask":
            ask(world, message(rng), rng.randrange(5))
            world.crash()
        case "fail" if rng.random() < 0.3:
            fail(world)
        case _:
            hear_nothing(world, rng.choice(RUNS))
    for late in world.late:
        assert world.session.on(late) == (), "stopped work is not heard"  # type: ignore[arg-type]


def hear_nothing(world: World, run: str) -> None:
    """Reports of work that doesn't run are passed over."""
    turn = world.session.turn
    if turn is None or turn.run != run:
        for signal in stray(run):
            assert world.session.on(signal) == ()


def walk(seed: int) -> World:
    print(f"walk({seed})")  # noqa: T201 — shown when it fails
    rng = random.Random(seed)
    world = World(reply=rng.choice(REPLIES)).open(rng.choice(("bank", "team")))
    for _ in range(rng.randrange(10, 60)):
        move(world, rng)
        check(world)
    return world


def check_acknowledged(world: World) -> None:
    """Whoever was told that a message is accepted finds it in the record, where it was said to be."""
    for answer in world.answers:
        if isinstance(answer, signals.Accepted):
            fact = world.facts[answer.seq - 1]
            assert isinstance(fact, MessageAccepted | MessageSent | NoteAdded)
            assert getattr(fact, "turn", "") == answer.turn
    ids = [fact.id for fact in world.accepted()]
    assert len(set(ids)) == len(ids), "no message is doubled"


def check_snapshots(world: World) -> None:
    """Wherever a snapshot is taken, it and the rest of the facts are as good as all of them."""
    whole = Session(id=world.session.id)
    snapshots = [CODEC.snapshot(whole)]
    for fact in world.facts:
        whole.fold(fact)
        snapshots.append(CODEC.snapshot(whole))
    for snapshot in snapshots[:: max(1, len(snapshots) // 4)]:
        rest = [_stored(n, fact) for n, fact in enumerate(world.facts, 1) if n > snapshot.seq]
        assert state(CODEC.wake(whole.id, snapshot, rest)) == state(whole)  # type: ignore[arg-type]


def _stored(seq: int, fact: object) -> Stored:
    return Stored(seq, NOW, CODEC.entry(fact))


@pytest.mark.parametrize("seeds", range(0, 600, 50))
def test_whatever_happens_in_whatever_order_the_record_keeps_its_promises(seeds: int) -> None:
    for seed in range(seeds, seeds + 50):
        world = walk(seed).finish()
        check(world)
        assert [end.turn for end in world.ends()] == world.turns(), "every accepted message is answered"
        check_acknowledged(world)
        check_snapshots(world)


@pytest.mark.parametrize("seeds", range(600, 700, 50))
def test_a_close_leaves_nothing_open(seeds: int) -> None:
    for seed in range(seeds, seeds + 50):
        world = walk(seed)
        world.feed(signals.Close())
        assert world.work is None and not world.session.unfinished
        assert [end.turn for end in world.ends()] == world.turns()
        check(world)
