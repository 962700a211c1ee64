"""What many tests need: passages, hits, and a world in which a pure session lives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from flotilla.core import signals
from flotilla.core.errors import Problem, Unavailable
from flotilla.core.facts import (
    Fact,
    MessageAccepted,
    ReplyCompleted,
    ReplyFailed,
    ReplyInterrupted,
    SessionOpened,
)
from flotilla.core.generation import Usage
from flotilla.core.ids import ActorId, new_id
from flotilla.core.knowledge import Hit, Passage
from flotilla.core.limits import LIMITS, Limits
from flotilla.core.ports import Journal
from flotilla.core.session import Session
from flotilla.core.signals import Effect, Signal

FEES = "The Silver card has an annual fee of $1,000.50 and a cash withdrawal fee of 3.5% at any machine."
CITED = "The Silver card has an annual fee of $1,000.50."
MADE_UP = "Bananas grow on very tall yellow trees."
QUESTION = "What does the Silver card cost?"

Ended = ReplyCompleted | ReplyFailed | ReplyInterrupted


def passage(text: str = FEES, id: str = "fees#0") -> Passage:
    return Passage(id=id, document=id.partition("#")[0], title="Fees", text=text)


def hit(text: str = FEES, similarity: float = 0.8, id: str = "fees#0") -> Hit:
    return Hit(passage=passage(text, id), score=1.0, similarity=similarity)


def problem() -> Problem:
    return Unavailable("The model is gone.", retry_after_s=1.0).problem()


def fold(facts: Iterable[Fact], limits: Limits = LIMITS) -> Session:
    session = Session("s_1", model="m-1", limits=limits)
    for fact in facts:
        session.apply(fact)
    return session


def state(session: Session) -> object:
    """All that a journal must bring back."""
    return msgspec.to_builtins(
        (
            session.seq,
            session.opened,
            session.closed,
            list(session.turns),
            {id: (seen.seq, seen.turn, seen.digest.hex()) for id, seen in session.seen.items()},
            list(session.history),
        )
    )


class World:
    """Performs the effects of one session as a host does: a journal, a hot log, a model that keeps
    to its script. `crash` loses the activation and keeps what was recorded and shown."""

    def __init__(
        self, *, reply: str = CITED, hits: Sequence[Hit] = (hit(),), limits: Limits = LIMITS
    ) -> None:
        self.session = Session("s_1", model="m-1", limits=limits)
        self.limits = limits
        self.reply, self.hits = reply, tuple(hits)
        self.facts: list[Fact] = []
        self.shown: dict[str, str] = {}
        self.answers: list[msgspec.Struct] = []
        self.performed: list[Effect] = []
        self.work: signals.Retrieve | signals.Generate | None = None
        self._given = 0

    # -- signals

    def feed(self, signal: Signal, effects_max: int | None = None) -> tuple[Effect, ...]:
        """Performs at most `effects_max` effects: the host may die in between."""
        effects = self.session.on(signal)
        for effect in effects[:effects_max]:
            self._perform(effect)
        return effects

    def open(self, agent: str = "bank") -> World:
        self.feed(signals.Open(agent=agent))
        return self

    def post(self, text: str = QUESTION, id: str = "c-1") -> tuple[Effect, ...]:
        return self.feed(signals.Post(id=id, text=text))

    def crash(self) -> None:
        """The host dies; another one folds the journal and reads the hot log."""
        self.work = None
        self.session = fold(self.facts, self.limits)
        turn = self.session.turn
        self.feed(signals.Woken(said=self.shown.get(turn.id, "") if turn else ""))

    # -- the work that goes on beside

    def next_signal(self) -> Signal | None:
        """What the search or the model reports next."""
        match self.work:
            case signals.Retrieve(turn=turn):
                return signals.Found(turn=turn, hits=self.hits, retrieval_ms=1.0)
            case signals.Generate(turn=turn, prompt=prompt):
                left = self.reply[len(prompt.said) + self._given :]
                if not left:
                    return signals.Generated(turn=turn, usage=Usage(completion_tokens=7))
                return signals.Streamed(turn=turn, text=left[:9])
            case _:
                return None

    def step(self, effects_max: int | None = None) -> bool:
        """False if nothing was under way."""
        signal = self.next_signal()
        if signal is None:
            return False
        if isinstance(signal, signals.Streamed):
            self._given += len(signal.text)
        else:
            self.work = None
        self.feed(signal, effects_max)
        return True

    def finish(self) -> World:
        """Lets the work go on until there is none."""
        while self.step():
            pass
        return self

    # -- what came of it

    def ends(self) -> list[Ended]:
        return [fact for fact in self.facts if isinstance(fact, Ended)]

    def accepted(self) -> list[MessageAccepted]:
        return [fact for fact in self.facts if isinstance(fact, MessageAccepted)]

    def completed(self) -> ReplyCompleted:
        (end,) = self.ends()
        assert isinstance(end, ReplyCompleted)
        return end

    def _perform(self, effect: Effect) -> None:
        self.performed.append(effect)
        match effect:
            case signals.Record():
                self.facts.extend(effect.facts)
            case signals.Answer():
                self.answers.append(effect.value)
            case signals.Say():
                assert effect.offset == len(self.shown.get(effect.turn, "")), "a gap or an overlap"
                assert self.facts[effect.seq - 1].turn == effect.turn  # type: ignore[union-attr]
                self.shown[effect.turn] = self.shown.get(effect.turn, "") + effect.text
            case signals.Retrieve() | signals.Generate():
                assert self.work is None, "two turns at a time"
                self.work, self._given = effect, 0
            case signals.Stop():
                assert self.work is None or self.work.turn == effect.turn
                self.work = None


def check(world: World) -> None:
    """What must hold of a record at any time."""
    assert world.session.seq == len(world.facts)
    assert state(fold(world.facts)) == state(world.session)
    ends = [end.turn for end in world.ends()]
    assert ends == [a.turn for a in world.accepted()][: len(ends)], "each turn ends once, in order"
    for end in world.ends():
        if not isinstance(end, ReplyFailed):
            assert world.shown.get(end.turn, "") == end.text, "what was seen is what is recorded"


# -- journals

NOW = datetime(2026, 11, 21, 9, 30, 0, 123456, tzinfo=UTC)
OPENED = SessionOpened(agent="bank", customer="Zoë 👩‍👩‍👧", metadata={"n": [1, None, {"k": "v"}]})


def actor(tenant: str = "t1", name: str | None = None, kind: str = "session") -> ActorId:
    return ActorId(tenant, kind, name or new_id("s"))


def message(n: int, text: str = "Hello") -> MessageAccepted:
    return MessageAccepted(turn=f"t_{n}", id=f"c-{n}", text=text)


async def append(journal: Journal, id: ActorId, expected: int, *facts, unfinished: bool = False) -> None:
    await journal.append(id, expected, facts, at=NOW, unfinished=unfinished)


async def facts_of(journal: Journal, id: ActorId) -> list:
    return [recorded.fact for recorded in await journal.read(id)]
