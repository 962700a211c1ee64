"""What many tests need: passages, hits, and a world in which a pure session lives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from flotilla.core import signals
from flotilla.core.agents import WhileTalking
from flotilla.core.effects import Answer, Answered, Ask, Effect, Record, Signal, Stop, Woken
from flotilla.core.errors import Problem, Unavailable
from flotilla.core.facts import (
    Fact,
    MessageAccepted,
    ReplyCompleted,
    ReplyFailed,
    ReplyInterrupted,
    SessionOpened,
)
from flotilla.core.flow import Done
from flotilla.core.generation import Usage
from flotilla.core.ids import ActorId, new_id
from flotilla.core.knowledge import Hit, Passage
from flotilla.core.limits import LIMITS, Limits
from flotilla.core.session import Session

FEES = "The Silver card has an annual fee of $1,000.50 and a cash withdrawal fee of 3.5% at any machine."
CITED = "The Silver card has an annual fee of $1,000.50."
MADE_UP = "Bananas grow on very tall yellow trees."
QUESTION = "What does the Silver card cost?"

ME = ActorId("t1", "session", "s_1")
Ended = ReplyCompleted | ReplyFailed | ReplyInterrupted


def passage(text: str = FEES, id: str = "fees#0") -> Passage:
    return Passage(id=id, document=id.partition("#")[0], title="Fees", text=text)


def hit(text: str = FEES, similarity: float = 0.8, id: str = "fees#0") -> Hit:
    return Hit(passage=passage(text, id), score=1.0, similarity=similarity)


def problem() -> Problem:
    return Unavailable("The model is gone.", retry_after_s=1.0).problem()


def fold(facts: Iterable[Fact], limits: Limits = LIMITS) -> Session:
    session = limited(limits)(id=ME)
    for fact in facts:
        session.fold(fact)
    return session


def limited(limits: Limits) -> type[Session]:
    return Session if limits is LIMITS else type("Session", (Session,), {"limits": limits})


def state(session: Session) -> object:
    """All that a journal must bring back."""
    fields: dict[str, Any] = msgspec.to_builtins(session)
    return {name: value for name, value in fields.items() if name not in ("said", "claimed")}


class World:
    """Performs the effects of one session as a host does: a journal, a hot log, a model or a team that
    keeps to its script. `crash` loses the activation and keeps what was recorded and shown."""

    def __init__(
        self, *, reply: str = CITED, hits: Sequence[Hit] = (hit(),), limits: Limits = LIMITS
    ) -> None:
        self.session = fold((), limits)
        self.limits = limits
        self.reply, self.hits = reply, tuple(hits)
        self.facts: list[Fact] = []
        self.shown: dict[str, str] = {}
        self.sealed: set[str] = set()
        self.claims: dict[str, str] = {}
        self.answers: list[msgspec.Struct] = []
        self.performed: list[Effect] = []
        self.work: signals.Retrieve | signals.Generate | Ask | None = None
        self.late: list[Signal] = []  # what stopped work would still report
        self._given = 0

    # -- signals

    def feed(self, signal: signals.Heard, effects_max: int | None = None) -> tuple[Effect, ...]:
        """Performs at most `effects_max` effects: the host may die in between."""
        effects = self.session.on(signal)
        for effect in effects[:effects_max]:
            self._perform(effect)
        return effects

    def open(self, agent: str = "bank") -> World:
        self.feed(signals.Open(agent=agent))
        return self

    def post(
        self, text: str = QUESTION, id: str = "c-1", way: WhileTalking | None = None
    ) -> tuple[Effect, ...]:
        return self.feed(signals.Post(id=id, text=text, while_talking=way))

    def accept(self, person: str = "Ann") -> tuple[Effect, ...]:
        return self.feed(signals.Accept(person=person))

    def crash(self) -> None:
        """The host dies; another one folds the journal and reads the hot log."""
        self.work = None
        self.late.clear()
        self.session = fold(self.facts, self.limits)
        turn = self.session.turn
        if turn is not None:
            said, sealed = self.shown.get(turn.id, ""), turn.id in self.sealed
            self.feed(Woken(said=said, sealed=sealed, model=self.claims.get(turn.id, "")))

    # -- the work that goes on beside

    def next_signal(self) -> signals.Worked | None:
        """What the search, the model or the team reports next."""
        match self.work:
            case signals.Retrieve(turn=turn, run=run):
                return signals.Found(turn=turn, run=run, hits=self.hits, retrieval_ms=1.0, model="m@1")
            case signals.Generate(turn=turn, run=run, prompt=prompt):
                left = self.reply[len(prompt.said) + self._given :]
                if not left:
                    return signals.Generated(turn=turn, run=run, usage=Usage(completion_tokens=7))
                return signals.Streamed(turn=turn, run=run, text=left[:9])
            case Ask(key=key):
                return Answered(key=key, value=Done(text=self.reply, documents=(passage(),)))
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

    def until_text(self) -> World:
        """Lets the work go on until the first text of the reply is shown."""
        while not self.session.said:
            assert self.step()
        return self

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

    def turns(self) -> list[str]:
        """In the order in which they were begun, each once."""
        return list(dict.fromkeys(fact.turn for fact in self.accepted() if fact.turn))

    def completed(self) -> ReplyCompleted:
        (end,) = self.ends()
        assert isinstance(end, ReplyCompleted)
        return end

    def _perform(self, effect: Effect) -> None:
        self.performed.append(effect)
        match effect:
            case Record():
                for fact in effect.facts:
                    shown = isinstance(fact, MessageAccepted) and self.shown.get(fact.turn)
                    assert not shown, "a message is merged into a reply that the customer already reads"
                self.facts.extend(effect.facts)
            case Answer():
                self.answers.append(effect.value)
            case signals.Say():
                self._show(effect)
            case signals.Seal():
                self.sealed.add(effect.turn)
            case signals.Unshown():
                assert not self.shown.get(effect.turn), "another one begins what the customer already reads"
                self.claims[effect.turn] = effect.model
            case signals.Retrieve() | signals.Generate() | Ask():
                assert self.work is None, "two works at a time"
                self.work, self._given = effect, 0
            case Stop():
                assert self.work is not None and self.work.key == effect.key, "only what runs is stopped"
                self.late += filter(None, [self.next_signal()])
                self.work = None
            case _:
                raise AssertionError(f"nobody performs {effect}")

    def _show(self, say: signals.Say) -> None:
        assert say.offset == len(self.shown.get(say.turn, "")), "a gap or an overlap"
        assert say.turn not in self.sealed, "text behind the end of a reply"
        assert not fold(self.facts).taken_by, "the agent talks over a person"
        first = next(n for n, f in enumerate(self.facts, 1) if getattr(f, "turn", None) == say.turn)
        assert say.seq == first, "a delta has the seq of the first message of its turn"
        self.shown[say.turn] = self.shown.get(say.turn, "") + say.text


def check(world: World) -> None:
    """What must hold of a record at any time."""
    assert world.session.seq == len(world.facts)
    assert state(fold(world.facts)) == state(world.session)
    ends = [end.turn for end in world.ends()]
    assert ends == world.turns()[: len(ends)], "each turn ends once, in order"
    over: set[str] = set()
    for fact in world.facts:
        assert getattr(fact, "turn", None) not in over or isinstance(fact, Ended), (
            "a turn goes on after its end"
        )
        over |= {fact.turn} if isinstance(fact, Ended) else set()
    for end in world.ends():
        if not isinstance(end, ReplyFailed):
            assert world.shown.get(end.turn, "") == end.text, "what was seen is what is recorded"
    assert (world.work is not None) == world.session.unfinished, (
        "work is under way while a turn is, and only then"
    )


# -- records

NOW = datetime(2026, 11, 21, 9, 30, 0, 123456, tzinfo=UTC)
OPENED = SessionOpened(agent="bank", customer="Zoë 👩‍👩‍👧", metadata={"n": [1, None, {"k": "v"}]})


def actor(tenant: str = "t1", name: str | None = None, kind: str = "session") -> ActorId:
    return ActorId(tenant, kind, name or new_id("s"))


def message(n: int, text: str = "Hello") -> MessageAccepted:
    return MessageAccepted(turn=f"t_{n}", id=f"c-{n}", text=text)
