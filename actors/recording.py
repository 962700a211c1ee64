"""Between an activation and its record: appends, snapshots, and those who read along."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from actors.follower import Follower
from flotilla.core.effects import Due, Record, Signal
from flotilla.core.errors import FlotillaError, Unavailable
from flotilla.core.journal import Append, Fired, Snapshot
from flotilla.core.ledger import Recorded
from flotilla.core.limits import LIMITS
from flotilla.core.policy import schedule
from flotilla.core.reminders import Forget, Remind, Reminder

if TYPE_CHECKING:
    from actors.activation import Activation

HISTORY_PAGE = LIMITS.follower_events_max // 2


async def record(at: Activation, effect: Record, signal: Signal, fired: Fired | None = None) -> None:
    """Appends, then tells everybody who reads along."""
    runtime, performer = at.host.runtime, at.resident.performer
    now, began = runtime.clock.now(), runtime.clock.monotonic()
    facts = [performer.stamp(at, fact, signal) for fact in effect.facts]
    append = Append(
        actor=at.id,
        expected=at.recorded,
        entries=tuple(map(at.resident.codec.entry, facts)),
        at=now,
        unfinished=effect.unfinished,
        person=at.actor.person,
        remind=tuple(_set(change, now) for change in effect.remind if isinstance(change, Remind)),
        forget=tuple(change.name for change in effect.remind if isinstance(change, Forget)),
        fired=fired,
    )
    under_way = at.host.pressure.append_began()
    try:
        await runtime.journal.append(append)
    finally:
        at.host.pressure.append_ended(under_way)
    at.verified_at = began
    if not effect.unfinished:
        at.crashes = None
    at.resident.counts["facts"] += len(facts)
    at.since_snapshot += len(facts)
    for fact in facts:
        at.recorded += 1
        recorded = Recorded(seq=at.recorded, at=now, fact=fact)
        performer.recorded(at, recorded)
        if at.followers and (frame := performer.frame(recorded)):
            at.publish(frame)


def _set(remind: Remind, now: datetime) -> Reminder:
    due = schedule.first_due(remind, now)
    return Reminder(name=remind.name, due=due, repeat=remind.repeat, all_missed=remind.all_missed)


def fired(due: Due, now: datetime) -> Fired:
    reminder = Reminder(name=due.name, due=due.at, repeat=due.repeat, all_missed=due.all_missed)
    return Fired(due.name, due.at, schedule.following(reminder, now))


async def pending(at: Activation, due: Due) -> bool:
    """Whether the record still knows of that due time."""
    reminders = await at.host.runtime.journal.reminders(at.id)
    return any(reminder.name == due.name and reminder.due == due.at for reminder in reminders)


def snapshot_soon(at: Activation) -> None:
    every = at.resident.kind.limits.snapshot_every
    if every and at.since_snapshot >= every and at.actor.seq == at.recorded:
        at.since_snapshot = 0
        # Made now: in a moment the state may be ahead of the record.
        at.host.spawn(_keep(at, at.resident.codec.snapshot(at.actor), at.actor.person))


async def _keep(at: Activation, snapshot: Snapshot, person: str) -> None:
    runtime = at.host.runtime
    try:
        await runtime.journal.keep(at.id, snapshot, person=person)
    except FlotillaError as error:  # the journal has it all; the next one will be kept
        runtime.log.info("snapshot.not_kept", actor=str(at.id), reason=error.detail)


async def welcome(at: Activation, follower: Follower) -> None:
    """Between two signals nothing moves, so a newcomer misses nothing and sees nothing twice."""
    try:
        current = not follower.ended and await _show_history(at, follower)
        if current and (frame := at.resident.performer.so_far(at, follower)) is not None:
            follower.put(frame)
    except FlotillaError as error:  # it comes again
        return follower.end(error)
    except Exception as error:  # a bug in what it would see is no bug of the actor
        at.host.runtime.log.error("follower.refused", actor=str(at.id), exc_info=error)
        return follower.end(FlotillaError("What there is to follow can't be shown."))
    if current and not follower.ended:  # it may have left meanwhile
        at.add_follower(follower)
    return None


async def _show_history(at: Activation, follower: Follower) -> bool:
    """False if there is more of it than a follower is given at once: it comes again for the rest."""
    if follower.after >= at.recorded:
        return True
    page = await at.host.runtime.journal.read(at.id, after=follower.after, limit=HISTORY_PAGE)
    for stored in page:
        if frame := at.resident.performer.frame(at.resident.codec.recorded(stored)):
            follower.put(frame)
    if page and page[-1].seq < at.recorded:
        follower.end(Unavailable("There is more.", next="Connect again for the rest.", retry_after_s=0.0))
        return False
    return True
