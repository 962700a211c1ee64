"""Coming to life, and coming back to life: from the record, whatever broke."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors import recording
from actors.mailbox import Envelope
from actors.performing import cancel_tasks
from flotilla.core.effects import Due, Record, Signal
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
    """A bug: memory can't be trusted, the record can. The message is tried again, then set aside."""
    runtime, tries_max = at.host.runtime, at.resident.kind.limits.tries_max
    envelope.tries += 1
    at.resident.counts["crashes"] += 1
    runtime.log.error("actor.crashed", actor=str(at.id), tries=envelope.tries, exc_info=error)
    cancel_tasks(at)
    if envelope.tries >= tries_max:
        if following := await set_aside(at, envelope, error):
            at.put_back(Envelope(following))
    else:
        await runtime.clock.sleep(BACK_OFF_FIRST_S * 4**envelope.tries * (0.5 + runtime.random.random()))
        at.put_back(envelope)
    await wake(at)


async def set_aside(at: Activation, envelope: Envelope, error: Exception) -> Signal | None:
    """Puts it into the dead letters and tells its sender; returns what the actor hears instead.

    The letter names the error's type and not its words: they may be the customer's.
    """
    runtime = at.host.runtime
    letter = Letter(
        id=new_id("x"),
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


async def _let_go(at: Activation, due: Due) -> None:
    """Its reminder has fired, though to no avail."""
    nothing = Record(facts=(), unfinished=at.actor.unfinished)
    await recording.record(at, nothing, due, recording.fired(due, at.host.runtime.clock.now()))
