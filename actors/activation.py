"""An actor that is awake: the loop that performs what its pure half decides.

One signal at a time. Its effects are performed in the order in which they are listed, so nothing
is answered, shown or started before the facts that it rests on are in the journal. What needs no
waiting is done within the step; the rest in a task, while the actor takes nothing else.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from actors import doubt, measuring, performing, recording, supervision
from actors.addressee import Addressee, told
from actors.audience import Newcomer
from actors.follower import Follower
from actors.mailbox import Envelope
from actors.outcomes import late, moved, unknown
from actors.runtime import Resident
from flotilla.core.actor import Actor
from flotilla.core.calls import Call
from flotilla.core.effects import Abandoned, Due, Effect, Message, Record, Signal, Step
from flotilla.core.errors import Conflict, FlotillaError, Moved, Unavailable
from flotilla.core.ids import ActorId

if TYPE_CHECKING:
    from actors.host import Host


Doing = Callable[[], Coroutine[Any, Any, None]]
# What is answered or shown from memory: for these the actor must not be behind its record.
ANSWERED: tuple[type[Signal], ...] = (Message, Newcomer)


class Activation(Addressee):
    """Made by its host, awake once its journal is folded. `notes` is for its performer."""

    __slots__ = (
        "_queued",
        "_runner",
        "_running",
        "actor",
        "crashes",
        "host",
        "id",
        "leaving",
        "lost",
        "notes",
        "recorded",
        "resident",
        "since_snapshot",
        "tasks",
        "touched",
        "verified_at",
    )

    def __init__(self, id: ActorId, resident: Resident, host: Host) -> None:
        super().__init__(resident.kind.limits.mailbox_messages_max)
        self.id = id
        self.actor: Actor = resident.codec.actor(id=id)
        self.resident = resident
        self.host = host
        self.recorded = 0  # the last seq that is in the journal
        self.since_snapshot = 0
        self.crashes: dict[str, int] | None = None  # of the work under way, by the signal that broke us
        self.verified_at = -math.inf  # when the record was known to hold no more than we know
        self.touched = host.runtime.clock.monotonic()
        self.lost = False
        self.leaving = False
        self.notes: Any = None
        self._queued = False
        self._running = False
        self._runner: asyncio.Task[None] | None = None
        self.tasks: dict[str, asyncio.Task[None]] | None = None

    def __repr__(self) -> str:
        return f"<Activation {self.id}: seq {self.recorded}, {self.waiting} waiting>"

    @property
    def idle(self) -> bool:
        busy = self._running or self._queued or self._box or self.tasks or self._tickets
        return not busy and not self.actor.unfinished

    def working_on(self) -> list[str]:
        """The keys of its works that are under way: for an operator."""
        return sorted(self.tasks or ())

    # -- hearing

    def deliver(self, envelope: Envelope, *, bounded: bool = True) -> None:
        """Raises `Moved` if the actor has left, `MailboxFull` if too much waits."""
        if self.lost:
            raise moved()
        envelope.since = self.host.runtime.clock.monotonic()
        self.put(envelope, bounded=bounded)
        self._schedule()

    def hear(self, signal: Signal, call: Call | None = None, deadline: float | None = None) -> None:
        """A signal of the actor's own work; too late for an actor that has left."""
        if not self.lost:
            self.deliver(Envelope(signal, None, call, deadline), bounded=False)

    def follow(self, follower: Follower) -> None:
        self.deliver(Envelope(Newcomer(follower=follower)), bounded=False)

    # -- the loop

    def _schedule(self) -> None:
        if not (self._running or self._queued):
            self._queued = True
            self.host.queue.add(self)

    def step(self) -> bool:
        if self.leaving and not self.lost:
            self.lose()
        if self._box and not self.lost:
            self._take(self._box.take())
        more = bool(self._box) and not self._running and not self.lost
        if not self._box:
            self._box = None
            self._rest()
        self._queued = more
        return more

    def _take(self, envelope: Envelope) -> None:
        try:
            self._handle(envelope)
        except Exception as error:  # not even its refusal could be said
            self._give_up(FlotillaError("The actor could not go on."), envelope, error)

    def _handle(self, envelope: Envelope) -> None:
        envelope.seq = self.recorded
        self.touched = now = self.host.runtime.clock.monotonic()
        if envelope.ticket is not None:
            if envelope.ticket.gone:
                return None
            if envelope.deadline is not None and envelope.deadline < now:
                return self.refuse(envelope, late())
        if isinstance(envelope.signal, ANSWERED) and not envelope.sure and self.host.doubt.about(self, now):
            return self._begin(partial(self._make_sure, envelope), envelope)
        if isinstance(envelope.signal, Newcomer):
            return self._begin(partial(recording.welcome, self, envelope.signal.follower), envelope)
        measuring.begun(self, envelope, now)
        return self._decide(envelope)

    async def _make_sure(self, envelope: Envelope) -> None:
        await doubt.verify(self)
        envelope.sure = True
        self.put_back(envelope)

    def _rest(self) -> None:
        if not (self._running or self._box or self.actor.unfinished):
            self.host.pressure.through(self.id)

    def begins(self) -> None:
        """There is something to see of its new work: that waits no more."""
        self.host.pressure.through(self.id, shown=True)

    def waited(self, queue: str, seconds: float) -> None:
        self.host.pressure.waited(queue, seconds)

    def engine_took(self, seconds: float) -> None:
        self.host.pressure.engine_took(seconds)

    def verify(self) -> None:
        """Looks into the journal now, if the actor has nothing else to do."""
        if not (self._running or self._queued):
            self._begin(partial(doubt.verify, self), None)

    def _decide(self, envelope: Envelope) -> None:
        self.resident.counts["messages"] += 1
        try:
            effects = self.actor.on(self.resident.performer.informed(self, envelope.signal))
        except FlotillaError as error:
            if self.actor.seq != self.recorded:  # a bug: who refuses must not have changed anything
                return self._begin(partial(supervision.crashed, self, envelope, error), envelope)
            self.refuse(envelope, error)
            measuring.done(self, envelope)
        except Exception as error:
            self._begin(partial(supervision.crashed, self, envelope, error), envelope)
        else:
            self._perform(effects, envelope)
        return None

    def _perform(self, effects: Sequence[Effect], envelope: Envelope) -> None:
        if isinstance(envelope.signal, Due):
            return self._begin(
                partial(performing.perform_due, self, effects, envelope.signal, envelope), envelope
            )
        try:
            for n, effect in enumerate(effects):
                if isinstance(effect, Record | Step):
                    return self._begin(partial(performing.perform_all, self, effects, envelope, n), envelope)
                performing.perform(self, effect, envelope)
        except FlotillaError as error:
            return self._give_up(error, envelope)
        except Exception as error:
            return self._begin(partial(supervision.crashed, self, envelope, error), envelope)
        performing.close(effects, envelope)
        return measuring.done(self, envelope)

    # -- what takes time

    def _begin(self, work: Doing, envelope: Envelope | None) -> None:
        """The actor takes nothing else until `work` is done."""
        self._running = True
        self._runner = asyncio.get_running_loop().create_task(self._run(work, envelope))

    async def _run(self, work: Doing, envelope: Envelope | None) -> None:
        try:
            await self._supervised(work, envelope)
        finally:
            measuring.done(self, envelope)
            self._running, self._runner = False, None
            if not self.lost and (self._box or self.leaving):
                self._schedule()
            self._rest()

    async def _supervised(self, work: Doing, envelope: Envelope | None, *, recovering: bool = False) -> None:
        try:
            await work()
        except FlotillaError as error:
            if envelope is None or recovering or isinstance(error, Conflict):
                return self._give_up(error, envelope)
            await self._supervised(
                partial(supervision.stumbled, self, envelope, error), envelope, recovering=True
            )
        except Exception as error:
            if envelope is None or recovering:
                return self._give_up(FlotillaError("The actor could not go on."), envelope, error)
            await self._supervised(
                partial(supervision.crashed, self, envelope, error), envelope, recovering=True
            )

    def _give_up(
        self, error: FlotillaError, envelope: Envelope | None, cause: Exception | None = None
    ) -> None:
        """Memory has run ahead of the record, or another host owns the actor: forget it all."""
        log = self.host.runtime.log
        log.warning("activation.lost", actor=str(self.id), reason=error.detail, exc_info=cause)
        shown = moved() if isinstance(error, Conflict) else error
        if envelope is not None:
            self.refuse(envelope, unknown() if isinstance(shown, Moved) and self.took(envelope) else shown)
        # What is wrong with one message is no reason to refuse the others.
        self.lose(shown if envelope is None or isinstance(shown, Unavailable) else moved())

    def wake(self) -> None:
        """Folds the journal; what is delivered meanwhile waits."""
        self._begin(partial(supervision.wake, self), None)

    # -- answering and leaving

    def abandoned(self, key: str) -> None:
        self.hear(Abandoned(key=key))

    def took(self, envelope: Envelope) -> bool:
        """Whether something is in the record that was decided about it: then it must not be tried again."""
        return self.recorded > envelope.seq

    def refuse(self, envelope: Envelope, error: FlotillaError) -> None:
        self.resident.counts["refused"] += 1
        measuring.failed(envelope, error)
        if not told(envelope, error) and not isinstance(envelope.signal, Abandoned):
            tag = type(envelope.signal).__name__
            self.host.runtime.log.warning(
                "signal.refused", actor=str(self.id), signal=tag, reason=error.detail
            )

    def leave(self) -> None:
        """Goes after the signal that is being handled; callers follow to the next owner."""
        if not self._running:
            return self.lose()
        self.leaving = True
        return None

    def abandon(self) -> None:
        """Gone without a word to anybody, as if its process had been killed."""
        self.lost = True
        performing.cancel_tasks(self)
        if self._runner is not None:
            self._runner.cancel()

    def lose(self, error: FlotillaError | None = None) -> None:
        """Forgets everything; the journal knows. Whoever waits is told to come again."""
        error = error or moved()
        self.lost = True
        performing.cancel_tasks(self)
        self.refuse_waiting(error)
        self.refuse_promised(unknown() if isinstance(error, Moved) else error)
        self.dismiss(error)
        self.host.forget(self)
