"""Reminders: times at which an actor wants to be told, kept in the record with its facts."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Every(msgspec.Struct, frozen=True, kw_only=True, tag="every"):
    """Due again so many seconds after the last due time (not after the last firing: it doesn't drift)."""

    seconds: float


class Cron(msgspec.Struct, frozen=True, kw_only=True, tag="cron"):
    """Five fields, read on the clock of `zone` (IANA), with names (`MON`), steps (`*/5`), `L` for the last
    day of the month, `5L` for its last Friday and `1#2` for its second Monday.

    At fixed hours and minutes, a time that a change to summer time skips comes right after it, and one
    that happens twice comes once, at its first. Where minute or hour begin with `*` (every so often), it
    goes by what the clock shows: the hour that happens twice has its times twice, the skipped one none."""

    expression: str
    zone: str = "UTC"


Repeat = Every | Cron


class Remind(msgspec.Struct, frozen=True, kw_only=True, tag="remind"):
    """Sets the reminder `name` of the actor, in place of an older one of that name. Due `at`, or
    `after_s` seconds after it is recorded, or else at the first time of `repeat`.

    `all_missed`: after an outage, each due time that was missed comes once, late. Otherwise one comes
    for all of them."""

    name: str
    at: datetime | None = None
    after_s: float | None = None
    repeat: Repeat | None = None
    all_missed: bool = True


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget"):
    name: str


class Reminder(msgspec.Struct, frozen=True, kw_only=True):
    """A reminder that is set: what the store keeps."""

    name: str
    due: datetime
    repeat: Repeat | None = None
    all_missed: bool = True
