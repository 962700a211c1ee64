"""How a conversation's effects are performed: search, generate, and show text that is logged first."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any

import msgspec

from actors.doorways import Doorways
from actors.follower import Follower
from actors.performer import Activation, Performer
from actors.residents.talk import Talk, claim, logged
from actors.runtime import Resident
from actors.serving.bills import Bills
from actors.stopwatch import Stopwatch
from actors.work import Work
from flotilla.core import effects, signals
from flotilla.core.agents import AGENTS
from flotilla.core.calls import Call
from flotilla.core.effects import Signal, Step, Woken
from flotilla.core.errors import Conflict, FlotillaError, NotFound, Problem, Unavailable
from flotilla.core.facts import (
    MessageAccepted,
    ReplyCompleted,
    ReplyFailed,
    ReplyInterrupted,
    ReplyStarted,
)
from flotilla.core.generation import Shown, Usage
from flotilla.core.journal import Stored
from flotilla.core.ledger import Recorded
from flotilla.core.ports import HotLog
from flotilla.core.replies import TEAM
from flotilla.core.session import Session
from flotilla.views import events


def residents(doors: Doorways) -> Iterable[Resident]:
    work = Work(
        knowledge=doors.knowledge, model=doors.model, clock=doors.clock, log=doors.log, limits=doors.limits
    )
    performer = SessionPerformer(work, doors.hot_log, doors.may_show, doors.spawn, doors.bills)
    yield Resident(Session, performer)


class SessionPerformer(Performer):
    """`may_show` says whether this process may still show text, or might have been declared dead."""

    def __init__(
        self,
        work: Work,
        hot_log: HotLog,
        may_show: Callable[[], bool],
        spawn: Callable[[Any], None],
        bills: Bills | None = None,
    ) -> None:
        self._work = work
        self._hot_log = hot_log
        self._may_show = may_show
        self._spawn = spawn
        self._bills = bills

    # -- coming to life

    def prepare(self, at: Activation, entries: Sequence[Stored]) -> None:
        accepted = {stored.seq: stored.at for stored in entries}
        for turn in at.actor.turns:
            if since := accepted.get(turn.seq):
                age_s = (self._work.clock.now() - since).total_seconds()
                _talk(at).watches[turn.id] = Stopwatch(self._work.clock.monotonic() - max(0.0, age_s))

    async def woken(self, at: Activation) -> Signal | None:
        turn = at.actor.turn
        if turn is None:
            return None
        talk = _talk(at)
        log = logged(await self._shown(at, turn.id, talk))
        talk.take(turn.id, log)
        return Woken(said=log.text, sealed=log.sealed, model=log.model)

    async def _shown(self, at: Activation, turn: str, talk: Talk) -> Shown:
        """While the hot log is down nobody shows anything: what we have shown ourselves is still all."""
        try:
            return await self._hot_log.read(at.id, turn)
        except Unavailable:
            if talk.turn != turn:
                raise
            return Shown(talk.claims + talk.shown)

    def informed(self, at: Activation, signal: Signal) -> Signal:
        """A message for an agent that looks nothing up gets its version here, and not after a search."""
        session = at.actor
        if not isinstance(signal, signals.Post) or session.opened is None or session.turns:
            return signal
        agent = AGENTS.get(session.opened.agent)
        if agent is None or agent.collection:
            return signal
        try:
            return msgspec.structs.replace(signal, model=self._work.chosen(session.origin, session.model))
        except NotFound:  # a new one, perhaps, of which this host hasn't read yet: its search takes the time
            return signal

    # -- in order

    async def step(self, at: Activation, effect: Step) -> None:
        match effect:
            case signals.Say():
                await self._say(at, effect)
            case signals.Seal():
                await self._seal(at, effect.turn)
            case signals.Unshown():
                await self._unshown(at, effect)
            case signals.Mention():
                at.publish(events.live_frame(at.actor.seq, effect.type, effect.data))
            case _:
                await super().step(at, effect)

    async def _seal(self, at: Activation, turn: str) -> None:
        """Raises `Conflict` if another host has shown more of the reply than we know: what is recorded as
        its text must be all of it."""
        shown = logged(Shown(await self._hot_log.seal(at.id, turn))).text
        if not _talk(at).shown_of(turn).startswith(shown):
            raise Conflict("Another host has shown more of this reply.")

    async def _unshown(self, at: Activation, effect: signals.Unshown) -> None:
        """Raises `Conflict` if another host, which the session has left, shows this reply; from here on it can't.
        While the hot log is down nobody shows anything, and the claim comes with the first words."""
        talk, mine = _talk(at), claim(effect.model)
        talk.begin(effect.turn)
        try:
            await self._hot_log.append(at.id, effect.turn, talk.logged_bytes, mine)
        except Conflict:
            raise
        except FlotillaError as error:
            self._work.log.warning("hot_log.down", actor=str(at.id), reason=error.detail)
            talk.owed = mine
            return
        talk.claimed(mine)

    async def _say(self, at: Activation, say: signals.Say) -> None:
        """Into the hot log, then to the followers. While the hot log is down nothing is shown: the
        reply goes on unseen, and its whole text comes with `reply.completed`."""
        talk = _talk(at)
        talk.begin(say.turn)
        talk.text += say.text
        unshown = talk.text[len(talk.shown) :]
        if not self._may_show():
            return
        try:
            await self._hot_log.append(at.id, say.turn, talk.logged_bytes, talk.owed + unshown)
        except Conflict:
            raise
        except FlotillaError as error:
            self._work.log.warning("hot_log.down", actor=str(at.id), reason=error.detail)
            return
        talk.claimed(talk.owed)
        if not talk.shown:
            at.begins()
        at.publish(events.delta_frame(say.seq, say.turn, len(talk.shown), unshown))
        talk.shown = talk.text

    def so_far(self, at: Activation, follower: Follower) -> bytes | None:
        """The reply under way, from the character on that the follower has not seen."""
        turn, talk = at.actor.turn, at.notes
        if turn is None or talk is None:
            return None
        seen, shown = follower.seen_of(turn.started_seq), talk.shown_of(turn.id)
        if len(shown) <= seen:
            return None
        return events.delta_frame(turn.seq, turn.id, seen, shown[seen:])

    # -- beside the loop

    async def work(self, at: Activation, effect: effects.Work, call: Call) -> AsyncGenerator[Signal]:
        match effect:
            case signals.Retrieve():
                yield await self._retrieve(at, effect)
            case signals.Generate():
                watch = self._watch(at, effect.turn)
                async for signal in self._work.generate(effect, watch):
                    if isinstance(signal, signals.Generated):
                        at.waited("model", watch.beyond_engine_s)
                        at.engine_took(watch.engine_first_ms / 1000)
                    yield signal
            case _:
                raise TypeError(f"A session has no work {type(effect).__name__}.")

    async def _retrieve(self, at: Activation, effect: signals.Retrieve) -> Signal:
        watch, clock = self._watch(at, effect.turn), self._work.clock
        watch.begun = clock.monotonic()
        signal = await self._work.retrieve(at.actor.origin, at.actor.model, effect)
        watch.found = clock.monotonic()
        at.waited("retrieval", watch.found - watch.begun)
        return signal

    def _watch(self, at: Activation, turn: str) -> Stopwatch:
        return _talk(at).watches.setdefault(turn, Stopwatch(self._work.clock.monotonic()))

    def broke(self, at: Activation, effect: effects.Work, error: FlotillaError) -> Signal | None:
        assert isinstance(effect, signals.Retrieve | signals.Generate)
        return signals.Failed(turn=effect.turn, run=effect.run, problem=error.problem())

    def poisoned(self, at: Activation, signal: Signal, problem: Problem) -> Signal | None:
        """Whatever the turn under way can't digest must not hold up the conversation."""
        turn = at.actor.turn
        if turn is None or isinstance(signal, effects.Message):
            return None
        return signals.Failed(turn=turn.id, run=turn.run, problem=problem)

    # -- recording

    def stamp(self, at: Activation, fact: Any, signal: Signal) -> Any:
        """The session has no clock: the time that a turn took is filled in as it is recorded."""
        now = self._work.clock.monotonic()
        if isinstance(fact, MessageAccepted) and fact.turn:
            waited_ms = signal.waited_ms if isinstance(signal, signals.Post) else 0.0
            _talk(at).watches.setdefault(fact.turn, Stopwatch(now - waited_ms / 1000))
        elif isinstance(fact, ReplyStarted):
            _talk(at).begin(fact.turn)
            self._watch(at, fact.turn).start(now)
        elif isinstance(fact, ReplyCompleted) and (watch := _talk(at).watches.get(fact.turn)):
            return msgspec.structs.replace(fact, timing=watch.timing(now))
        return fact

    def recorded(self, at: Activation, recorded: Recorded) -> None:
        """Drops what was kept for a turn whose end is in the record."""
        fact, talk = recorded.fact, at.notes
        if isinstance(fact, ReplyCompleted):
            self._completed(at, fact)
        if not isinstance(fact, ReplyCompleted | ReplyFailed | ReplyInterrupted):
            return
        if (
            not isinstance(fact, ReplyCompleted)
            and talk is not None
            and (watch := talk.watches.get(fact.turn))
        ):
            self._broken_off(at, fact.turn, watch)
        if isinstance(fact, ReplyCompleted | ReplyFailed):  # other ends seal before they are recorded
            self._spawn(self._seal_late(at, fact.turn))
        if talk is not None:
            talk.watches.pop(fact.turn, None)
            talk.over()
            at.notes = talk if talk.watches else None

    def _completed(self, at: Activation, fact: ReplyCompleted) -> None:
        """Scored and charged, if a model made it. (Those of a team charge their own work.)"""
        if not fact.model or fact.model.startswith(TEAM):
            return
        self._work.model.score(fact.model, fact.confidence)
        if self._bills is not None:
            self._bills.charge(
                at.id.tenant,
                fact.turn,
                source="session",
                model=fact.model,
                usage=fact.usage,
                first_token_ms=fact.timing.first_token,
            )

    def _broken_off(self, at: Activation, turn: str, watch: Stopwatch) -> None:
        """Charged for the tokens that were made. Those of its prompt an engine tells with the end of a reply."""
        if self._bills is None or not watch.made:
            return
        usage = Usage(completion_tokens=watch.made)
        self._bills.charge(at.id.tenant, turn, source="session", model=watch.model, usage=usage)

    async def _seal_late(self, at: Activation, turn: str) -> None:
        """The text is in the record; the log of it would also expire by itself."""
        try:
            await self._hot_log.seal(at.id, turn, forget=True)
        except FlotillaError as error:
            self._work.log.info("hot_log.not_sealed", actor=str(at.id), reason=error.detail)


def _talk(at: Activation) -> Talk:
    if at.notes is None:
        at.notes = Talk()
    return at.notes
