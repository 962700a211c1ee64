"""Coming to life, and coming back to life: from the record, whatever broke."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors import measuring, recording
from actors.mailbox import Envelope
from actors.performing import cancel_tasks
from actors.tickets import Replayed
from flotilla.core.effects import Due, Message, Record, Signal
from flotilla.core.errors import Poisoned
from flotilla.core.ids import new_id
from flotilla.core.journal import Letter
from flotilla.core.ledger import Stale

BACK_OFF_FIRST_S = 0.01

if TYPE_CHECKING:
    from actors.activation import Activation


async def wake(at: Activation) -> None:
    """Folds the journal. The first signal that the actor hears is what it has to go on with."""
    runtime, codec = at.host.runtime, at.resident.codec
    snapshot, entries = await runtime.journal.load(at.id)
    try:
        at.actor = codec.wake(at.id, snapshot, entries)
        at.since_snapshot = len(entries)
    except Stale:
        entries = await runtime.journal.read(at.id)
        at.actor = codec.wake(at.id, None, entries)
        at.since_snapshot = at.resident.kind.limits.snapshot_every
    at.recorded, at.notes = at.actor.seq, None
    at.resident.performer.prepare(at, entries)
    if signal := await at.resident.performer.woken(at):
        at.put_back(Envelope(signal))


async def crashed(at: Activation, envelope: Envelope, error: Exception) -> None:
    """A bug: memory can't be trusted, the record can. A message is tried again, then set aside. What the
    actor's own work has reported is dropped, as waking begins that work again."""
    runtime = at.host.runtime
    external = isinstance(envelope.signal, Message | Due)
    envelope.tries = envelope.tries + 1 if external else _count(at, envelope.signal)
    at.resident.counts["crashes"] += 1
    measuring.failed(envelope, error)
    runtime.log.error("actor.crashed", actor=str(at.id), tries=envelope.tries, exc_info=error)
    cancel_tasks(at)
    at.drop_reports()
    if envelope.tries >= at.resident.kind.limits.tries_max:
        at.crashes = None
        if following := await set_aside(at, envelope, error):
            at.put_back(Envelope(following))
    else:
        await runtime.clock.sleep(BACK_OFF_FIRST_S * 4**envelope.tries * (0.5 + runtime.random.random()))
        if external:
            at.put_back(envelope)
    await wake(at)


def _count(at: Activation, signal: Signal) -> int:
    """How often work of this kind has broken the actor since it was last at rest."""
    at.crashes = at.crashes or {}
    name = type(signal).__name__
    at.crashes[name] = at.crashes.get(name, 0) + 1
    return at.crashes[name]


async def set_aside(at: Activation, envelope: Envelope, error: Exception) -> Signal | None:
    """Puts it into the dead letters and tells its sender; returns what the actor hears instead.

    The letter names the error's type and not its words: they may be the customer's.
    """
    runtime = at.host.runtime
    letter = Letter(
        id=_letter_id(envelope),
        actor=at.id,
        at=runtime.clock.now(),
        message=msgspec.msgpack.encode(envelope.signal),
        problem=f"{type(error).__name__} in {type(envelope.signal).__name__}",
        tries=envelope.tries,
    )
    await runtime.letters.put(letter)
    at.resident.counts["letters"] += 1
    poisoned = Poisoned(
        f"{type(envelope.signal).__name__} broke its actor {envelope.tries} times ({type(error).__name__}).",
        next=f"It is set aside as {letter.id}: see `flotilla actors letters`.",
    )
    if envelope.ticket is not None:
        envelope.ticket.refuse(poisoned)
    if isinstance(envelope.signal, Due):
        await _let_go(at, envelope.signal)
    return at.resident.performer.poisoned(at, envelope.signal, poisoned.problem())


def _letter_id(envelope: Envelope) -> str:
    """A letter that is replayed and breaks its actor again is the one that is there already."""
    ticket = envelope.ticket
    return ticket.letter if isinstance(ticket, Replayed) and not ticket.taken else new_id("x")


async def _let_go(at: Activation, due: Due) -> None:
    """Its reminder has fired, though to no avail."""
    nothing = Record(facts=(), unfinished=at.actor.unfinished)
    await recording.record(at, nothing, due, recording.fired(due, at.host.runtime.clock.now()))
