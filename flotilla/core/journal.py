"""What the record holds, as bytes: the journal's port speaks these, a `Ledger` turns them into facts."""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b

import msgspec

from flotilla.core.ids import ActorId
from flotilla.core.reminders import Reminder, Repeat

BUCKETS = 64


def bucket_of(actor: ActorId) -> int:
    """Which of the `BUCKETS` parts of all reminders those of `actor` are in."""
    return blake2b(str(actor).encode(), digest_size=1).digest()[0] % BUCKETS


class Entry(msgspec.Struct, frozen=True):
    """A fact, encoded: its type (the fact's tag), the version of its kind's schema, its JSON."""

    type: str
    version: int
    body: bytes


class Stored(msgspec.Struct, frozen=True):
    """An entry in the journal: `seq` counts from 1 without gaps."""

    seq: int
    at: datetime
    entry: Entry


class Snapshot(msgspec.Struct, frozen=True):
    """The state of an actor after `seq`: what folding the first `seq` entries gives."""

    seq: int
    version: int
    body: bytes


class Fired(msgspec.Struct, frozen=True):
    """A due time of a reminder that an append answers: it must still be pending. `following` takes its
    place in the same transaction; without one the reminder is gone."""

    name: str
    due: datetime
    following: Reminder | None = None


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction of one actor: all of it or nothing.

    `expected` is the last `seq` that the writer knows: the fence. `person` is whose key seals the
    bodies ("" for the actor itself): dropping that key erases them. `entries` may be empty.
    """

    actor: ActorId
    expected: int
    entries: tuple[Entry, ...]
    at: datetime
    unfinished: bool = False
    person: str = ""
    remind: tuple[Reminder, ...] = ()
    forget: tuple[str, ...] = ()
    fired: Fired | None = None


def reminders_gone(append: Append) -> dict[str, datetime | None]:
    """The names of those that go first, each with the time at which it must still be due; None for one that
    is only forgotten, and need not be there."""
    gone: dict[str, datetime | None] = dict.fromkeys(append.forget)
    return gone | ({append.fired.name: append.fired.due} if append.fired else {})


def reminders_made(append: Append) -> list[Reminder]:
    """Those that are set then. What follows a fired one may be forgotten, or set anew."""
    made: dict[str, Reminder] = {}
    if append.fired and append.fired.following and append.fired.following.name not in append.forget:
        made[append.fired.following.name] = append.fired.following
    return list((made | {reminder.name: reminder for reminder in append.remind}).values())


class Due(msgspec.Struct, frozen=True):
    """A pending reminder whose time has come."""

    actor: ActorId
    name: str
    at: datetime
    repeat: Repeat | None = None
    all_missed: bool = True


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter: a message that an actor could not take, after so many tries."""

    id: str
    actor: ActorId
    at: datetime
    message: bytes
    problem: str
    tries: int
