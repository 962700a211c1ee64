"""A conversation as an actor: the loop that performs what the pure session decides.

One signal at a time. Its effects are performed in the order in which they are listed, so nothing
is answered, shown or started before the facts that it rests on are in the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, assert_never

import msgspec

from actors.follower import Follower
from actors.mailbox import Mailbox, Ticket
from actors.stopwatch import Stopwatch
from actors.work import Work
from flotilla.core import signals
from flotilla.core.errors import Conflict, FlotillaError, Unavailable
from flotilla.core.facts import (
    Fact,
    MessageAccepted,
    Recorded,
    ReplyCompleted,
    ReplyFailed,
    ReplyInterrupted,
)
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from flotilla.core.session import Session
from flotilla.core.signals import Effect, Signal
from flotilla.views import events

HISTORY_PAGE = LIMITS.follower_events_max // 2
MORE = Unavailable("There is more.", next="Connect again for the rest.", retry_after_s=0.0)
MOVED = Unavailable("The conversation goes on at another host.", next="Connect again.", retry_after_s=0.1)


class SessionActor:
    """An activation of one session. `on_lost` is called when it can't go on: its host forgets it."""

    def __init__(self, id: ActorId, work: Work) -> None:
        self.id = id
        self.session = Session(id.name)
        self.mailbox = Mailbox()
        self.followers: list[Follower] = []
        self._newcomers: list[Follower] = []
        self.lost = False
        self.touched = work.clock.monotonic()
        self._work = work
        self._recorded = 0
        self._text = ""  # the reply under way
        self._shown = ""  # what the hot log, and so the customer, has of it
        self._runner: asyncio.Task[None] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watches: dict[str, Stopwatch] = {}

    def __repr__(self) -> str:
        return f"<SessionActor {self.id}: seq {self._recorded}, {len(self.mailbox)} waiting>"

    @property
    def idle(self) -> bool:
        busy = self._tasks or self.mailbox or self.session.unfinished
        return not busy and (self._runner is None or self._runner.done())

    # -- coming to life

    async def wake(self) -> None:
        """Folds the journal, and goes on with a reply that was under way."""
        for recorded in await self._work.journal.read(self.id):
            self.session.apply(recorded.fact)
            self._recorded = recorded.seq
            if isinstance(recorded.fact, MessageAccepted):
                self._watch_since(recorded)
        turns = {turn.id for turn in self.session.turns}
        self._watches = {turn: watch for turn, watch in self._watches.items() if turn in turns}
        if turn := self.session.turn:
            self._text = self._shown = await self._work.hot_log.read(self.id, turn.id)
            self.deliver(signals.Woken(said=self._shown))

    def _watch_since(self, recorded: Recorded) -> None:
        assert isinstance(recorded.fact, MessageAccepted)
        age_s = (self._work.clock.now() - recorded.at).total_seconds()
        self._watches[recorded.fact.turn] = Stopwatch(self._work.clock.monotonic() - age_s)

    # -- the loop

    async def ask(self, ask: signals.Ask) -> msgspec.Struct:
        ticket: Ticket = asyncio.get_running_loop().create_future()
        self.deliver(ask, ticket)
        return await ticket

    def deliver(self, signal: Signal, ticket: Ticket | None = None) -> None:
        if self.lost:
            raise MOVED
        self.mailbox.put(signal, ticket)
        self._run_soon()

    def follow(self, follower: Follower) -> None:
        """From its place in the loop on, `follower` gets every frame; what it missed comes first."""
        if self.lost:
            raise MOVED
        self._newcomers.append(follower)
        self._run_soon()

    def unfollow(self, follower: Follower) -> None:
        if follower in self.followers:
            self.followers.remove(follower)

    def _run_soon(self) -> None:
        if self._runner is None or self._runner.done():
            self._runner = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while (self.mailbox or self._newcomers) and not self.lost:
            try:
                await self._catch_up()
                if self.mailbox:
                    await self._handle(*self.mailbox.take())
            except FlotillaError as error:
                self._work.log.warning("activation.lost", actor=str(self.id), reason=error.detail)
                self.lose()
            except Exception:  # a bug: memory can't be trusted, the record can
                self._work.log.exception("activation.broke", actor=str(self.id))
                self.lose()

    async def _handle(self, signal: Signal, ticket: Ticket | None) -> None:
        """Raises when what is in memory has run ahead of the record: then the record is read again."""
        self.touched = self._work.clock.monotonic()
        self.session.model = self._work.model.name
        try:
            effects = self.session.on(signal)
        except FlotillaError as error:  # refused: nothing has changed
            return _refuse(ticket, error)
        except Exception:
            _refuse(ticket, _broke(signal))
            raise
        try:
            for effect in effects:
                await self._perform(effect, signal, ticket)
        except Exception as error:
            _refuse(ticket, error if isinstance(error, FlotillaError) else _broke(signal))
            raise

    async def _catch_up(self) -> None:
        """Between two signals nothing moves, so a newcomer misses nothing and sees nothing twice."""
        while self._newcomers:
            follower = self._newcomers[-1]
            if not follower.ended and await self._show_history(follower):
                self._show_so_far(follower)
                self.followers.append(follower)
            self._newcomers.remove(follower)

    async def _show_history(self, follower: Follower) -> bool:
        """False if there is more of it than a follower is given at once: it comes again for the rest."""
        if follower.after >= self._recorded:
            return True
        page = await self._work.journal.read(self.id, after=follower.after, limit=HISTORY_PAGE)
        for recorded in page:
            follower.put(events.frame(recorded))
        if page and page[-1].seq < self._recorded:
            follower.end(MORE)
            return False
        return True

    def _show_so_far(self, follower: Follower) -> None:
        """The reply under way, from the character on that the follower has not seen."""
        turn = self.session.turn
        seen = follower.seen_of(turn.started_seq) if turn else 0
        if turn is not None and len(self._shown) > seen:
            follower.put(events.delta_frame(turn.seq, turn.id, seen, self._shown[seen:]))

    def lose(self) -> None:
        """Forgets everything; the journal knows. Whoever waits is told to come again."""
        self.lost = True
        for task in self._tasks.values():
            task.cancel()
        for ticket in self.mailbox.take_tickets():
            _refuse(ticket, MOVED)
        for follower in (*self.followers, *self._newcomers):
            follower.end(MOVED)
        self._work.on_lost(self)

    # -- performing

    async def _perform(self, effect: Effect, signal: Signal, ticket: Ticket | None) -> None:
        match effect:
            case signals.Record():
                await self._record(effect, signal)
            case signals.Answer():
                if ticket is not None and not ticket.done():
                    ticket.set_result(effect.value)
            case signals.Say():
                await self._say(effect)
            case signals.Retrieve():
                self._start(effect.turn, self._retrieve(effect))
            case signals.Generate():
                self._start(effect.turn, self._generate(effect))
            case signals.Stop():
                if task := self._tasks.pop(effect.turn, None):
                    task.cancel()
            case _:
                assert_never(effect)

    async def _record(self, record: signals.Record, signal: Signal) -> None:
        now = self._work.clock.now()
        facts = [self._timed(fact, signal) for fact in record.facts]
        await self._work.journal.append(self.id, self._recorded, facts, at=now, unfinished=record.unfinished)
        for fact in facts:
            self._recorded += 1
            self._publish(events.frame(Recorded(seq=self._recorded, at=now, fact=fact)))
            if isinstance(fact, ReplyCompleted | ReplyFailed | ReplyInterrupted):
                self._clean(fact.turn)

    def _timed(self, fact: Fact, signal: Signal) -> Fact:
        """The session has no clock: the time that a turn took is filled in as it is recorded."""
        now = self._work.clock.monotonic()
        if isinstance(fact, MessageAccepted):
            waited_ms = signal.waited_ms if isinstance(signal, signals.Post) else 0.0
            self._watches[fact.turn] = Stopwatch(now - waited_ms / 1000)
        elif isinstance(fact, ReplyCompleted) and (watch := self._watches.get(fact.turn)):
            return msgspec.structs.replace(fact, timing=watch.timing(now))
        return fact

    def _clean(self, turn: str) -> None:
        """Drops what was kept for a turn whose end is in the record."""
        self._watches.pop(turn, None)
        self._tasks.pop(turn, None)
        if self._shown:
            self._work.forget_soon(self.id, turn)
        self._text = self._shown = ""

    async def _say(self, say: signals.Say) -> None:
        """Into the hot log, then to the followers. While the hot log is down nothing is shown: the
        reply goes on unseen, and its whole text comes with `reply.completed`."""
        self._text += say.text
        unshown = self._text[len(self._shown) :]
        try:
            await self._work.hot_log.append(self.id, say.turn, len(self._shown.encode()), unshown)
        except Conflict:
            raise
        except FlotillaError as error:
            self._work.log.warning("hot_log.down", actor=str(self.id), reason=error.detail)
            return
        self._publish(events.delta_frame(say.seq, say.turn, len(self._shown), unshown))
        self._shown = self._text

    def _publish(self, frame: bytes) -> None:
        self.followers = [follower for follower in self.followers if not follower.ended]
        for follower in self.followers:
            follower.put(frame)

    # -- work beside the loop

    def _start(self, turn: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[turn] = asyncio.get_running_loop().create_task(work)

    async def _retrieve(self, effect: signals.Retrieve) -> None:
        watch = self._watch(effect.turn)
        watch.begun = self._work.clock.monotonic()
        signal = await self._work.retrieve(self.id.tenant, effect)
        watch.found = self._work.clock.monotonic()
        self._report(signal)

    async def _generate(self, effect: signals.Generate) -> None:
        watch = self._watch(effect.turn)
        async for signal in self._work.generate(effect, watch):
            self._report(signal)

    def _watch(self, turn: str) -> Stopwatch:
        return self._watches.setdefault(turn, Stopwatch(self._work.clock.monotonic()))

    def _report(self, signal: Signal) -> None:
        if not self.lost:
            self.deliver(signal)


def _broke(signal: Signal) -> FlotillaError:
    return FlotillaError(
        f"{type(signal).__name__} could not be handled.", next="Try again.", retry_after_s=1.0
    )


def _refuse(ticket: Ticket | None, error: FlotillaError) -> None:
    if ticket is not None and not ticket.done():
        ticket.set_exception(error)
