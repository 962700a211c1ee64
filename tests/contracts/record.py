"""A record in small: the entries, appends and reminders that the tests of the stores write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flotilla.core.ids import ActorId, new_id
from flotilla.core.journal import Append, Entry, Stored
from flotilla.core.ports import Journal
from flotilla.core.reminders import Reminder

SECRET = "a secret of the tests, of more than 32 letters"
NOW = datetime(2026, 11, 21, 9, 30, 0, 123456, tzinfo=UTC)
# No text: a journal must not care what the bytes are.
ODD = bytes(range(256)) + "naïve 日本語 \u2028 '; drop table facts; --".encode()


def actor(tenant: str = "t1", name: str | None = None, kind: str = "session") -> ActorId:
    return ActorId(tenant, kind, name or new_id("s"))


def entry(n: int = 1, body: bytes | None = None, version: int = 1) -> Entry:
    return Entry("counted", version, b'{"type":"counted","n":%d}' % n if body is None else body)


async def append(journal: Journal, id: ActorId, expected: int, *entries: Entry, **more: Any) -> None:
    await journal.append(Append(actor=id, expected=expected, entries=entries, at=NOW, **more))


async def entries_of(journal: Journal, id: ActorId) -> list[Entry]:
    return [stored.entry for stored in await journal.read(id)]


def stored(first: int, *entries: Entry) -> list[Stored]:
    return [Stored(seq, NOW, entry) for seq, entry in enumerate(entries, first)]


def reminder(name: str = "r", after_s: float = 0.0, **more: Any) -> Reminder:
    return Reminder(name=name, due=NOW + timedelta(seconds=after_s), **more)
