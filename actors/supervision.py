"""Coming to life, and coming back to life: from the record, whatever broke."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors import measuring, recording
from actors.mailbox import Envelope
from actors.outcomes import unknown
from actors.performing import cancel_tasks
from actors.tickets import Replayed
from flotilla.core.effects import Due, Message, Record, Signal, Woken
from flotilla.core.errors import FlotillaError, Poisoned
from flotilla.core.ids import new_id
from flotilla.core.journal import Letter
from flotilla.core.ledger import Stale

BACK_OFF_FIRST_S = 0.01

if TYPE_CHECKING:
    from actors.activation import Activation


async def wake(at: Activation, *, quietly: bool = False, again: bool = False) -> None:
    """Folds the journal. The first signal that the actor hears is what it has to go on with, unless it
    wakes `quietly`. One that wakes `again` keeps its performer's notes."""
    runtime, codec = at.host.runtime, at.resident.codec
    began = runtime.clock.monotonic()
    snapshot, entries = await runtime.journal.load(at.id)
    try:
        at.actor = codec.wake(at.id, snapshot, entries)
        at.since_snapshot = len(entries)
    except Stale:
        entries = await runtime.journal.read(at.id)
        at.actor = codec.wake(at.id, None, entries)
        at.since_snapshot = at.resident.kind.limits.snapshot_every
    if at.actor.seq != at.recorded:
        at.dismiss()  # who follows has not seen what is new
    at.recorded, at.verified_at = at.actor.seq, began
    at.notes = at.notes if again else None
    at.resident.performer.prepare(at, entries)
    signal = await at.resident.performer.woken(at)
    if signal and not quietly:
        at.put_back(Envelope(signal))


async def stumbled(at: Activation, envelope: Envelope, error: FlotillaError) -> None:
    """A door was shut half-way, so memory has run ahead of the record: it is folded again, here, with
    what has been shown still in mind. Raises if the record is what can't be reached."""
    log = at.host.runtime.log
    log.warning("activation.stumbled", actor=str(at.id), reason=error.detail)
    at.refuse(envelope, unknown() if at.took(envelope) else error)
    cancel_tasks(at)
    at.drop_reports()
    at.refuse_promised(unknown())
    await wake(at, again=True)


async def crashed(at: Activation, envelope: Envelope, error: Exception) -> None:
    """A bug: memory can't be trusted, the record can. What the actor's own work has reported is dropped,
    as waking begins that work again; who was promised an answer may come again."""
    external = isinstance(envelope.signal, Message | Due)
    envelope.tries = envelope.tries + 1 if external else _count(at, envelope.signal)
    at.resident.counts["crashes"] += 1
    measuring.failed(envelope, error)
    log = at.host.runtime.log
    log.error("actor.crashed", actor=str(at.id), tries=envelope.tries, exc_info=error)
    cancel_tasks(at)
    at.drop_reports()
    at.refuse_promised(unknown())
    await (_message_crashed if external else _work_crashed)(at, envelope, error)


async def _message_crashed(at: Activation, envelope: Envelope, error: Exception) -> None:
    """It is tried again, then set aside; not if what was decided about it is in the record."""
    taken = at.took(envelope)
    again = envelope.tries < at.resident.kind.limits.tries_max
    if taken and envelope.ticket is not None:
        envelope.ticket.refuse(unknown())
    elif again and not taken:
        await _back_off(at, envelope.tries)
        at.put_back(envelope)
    elif not taken and (following := await set_aside(at, envelope, error)):
        at.put_back(Envelope(following))
    await wake(at)
    if isinstance(envelope.signal, Due) and not (again or taken):
        await _let_go(at, envelope.signal)


async def _work_crashed(at: Activation, envelope: Envelope, error: Exception) -> None:
    """Waking begins it again. Once it was set aside there must be something else to hear: an actor that
    still breaks wakes to nothing, and is there for messages."""
    signal, most = envelope.signal, at.resident.kind.limits.tries_max
    if envelope.tries < most:
        await _back_off(at, envelope.tries)
    elif envelope.tries == most:
        following = await set_aside(at, envelope, error)
        if following is not None and type(following) is not type(signal):
            at.put_back(Envelope(following))
            _forgive(at, signal)
    await wake(at, quietly=envelope.tries > most or (envelope.tries == most and isinstance(signal, Woken)))


async def _back_off(at: Activation, tries: int) -> None:
    runtime = at.host.runtime
    await runtime.clock.sleep(BACK_OFF_FIRST_S * 4**tries * (0.5 + runtime.random.random()))


def _count(at: Activation, signal: Signal) -> int:
    """How often work of this kind has broken the actor since it was last at rest."""
    at.crashes = at.crashes or {}
    name = type(signal).__name__
    at.crashes[name] = at.crashes.get(name, 0) + 1
    return at.crashes[name]


def _forgive(at: Activation, signal: Signal) -> None:
    if at.crashes:
        at.crashes.pop(type(signal).__name__, None)


async def set_aside(at: Activation, envelope: Envelope, error: Exception) -> Signal | None:
    """Puts it into the dead letters and tells its sender; returns what the actor hears instead.

    The letter names the error's type and not its words: they may be the customer's.
    """
    runtime = at.host.runtime
    letter = Letter(
        id=_letter_id(envelope),
        actor=at.id,
        at=runtime.clock.now(),
        message=_written(envelope.signal),
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
    return at.resident.performer.poisoned(at, envelope.signal, poisoned.problem())


def _written(signal: Signal) -> bytes:
    """The actor's own work may report what no letter can hold; nobody could send that again either."""
    try:
        return msgspec.msgpack.encode(signal)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError):
        return msgspec.msgpack.encode({})


def _letter_id(envelope: Envelope) -> str:
    """A letter that is replayed and breaks its actor again is the one that is there already."""
    ticket = envelope.ticket
    return ticket.letter if isinstance(ticket, Replayed) and not ticket.taken else new_id("x")


async def _let_go(at: Activation, due: Due) -> None:
    """Its reminder has fired, though to no avail."""
    nothing = Record(facts=(), unfinished=at.actor.unfinished)
    await recording.record(at, nothing, due, recording.fired(due, at.host.runtime.clock.now()))
