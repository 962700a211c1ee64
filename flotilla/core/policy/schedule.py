"""When a reminder is due: first, and after each time.

The rules for days on which clocks change are those of Debian's cron, as `cronsim` has them; what it
says of a time is checked here to be later than the one it follows.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from flotilla.core.errors import Refused
from flotilla.core.reminders import Cron, Every, Remind, Reminder, Repeat

NAME_CHARACTERS_MAX = 200
EXPRESSION_CHARACTERS_MAX = 200
CRON_FIELDS = 5
EVERY_S_MIN = 1.0
SPAN_S_MAX = 100 * 366 * 86_400.0  # of `after_s` and of `Every.seconds`
ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)
YEAR_MIN, YEAR_MAX = 1970, 9000  # of `at`: what follows can then always be said


def first_due(remind: Remind, now: datetime) -> datetime:
    """The first due time, in UTC, of what is set at `now`. Raises `Refused` as `check` does."""
    check(remind)
    if remind.at is not None:
        return remind.at.astimezone(UTC)
    if remind.after_s is not None:
        return now.astimezone(UTC) + timedelta(seconds=remind.after_s)
    assert remind.repeat is not None  # or `check` had refused it
    return _next(remind.repeat, now.astimezone(UTC), now.astimezone(UTC))


def following(reminder: Reminder, now: datetime) -> Reminder | None:
    """The reminder with the due time that comes after this one; None if there is none.

    With `all_missed` that is the very next, though it may have passed; otherwise the first after `now`."""
    if reminder.repeat is None:
        return None
    due = reminder.due.astimezone(UTC)
    after = due if reminder.all_missed else max(due, now.astimezone(UTC))
    return Reminder(
        name=reminder.name,
        due=_next(reminder.repeat, due, after),
        repeat=reminder.repeat,
        all_missed=reminder.all_missed,
    )


def check(remind: Remind) -> None:
    """Raises `Refused`, with the field at fault, for a reminder that can't be set."""
    if not 0 < len(remind.name) <= NAME_CHARACTERS_MAX or not remind.name.isprintable():
        raise Refused(f"A reminder's name has 1 to {NAME_CHARACTERS_MAX} printable characters.", field="name")
    if remind.at is not None:
        _check_at(remind)
    elif remind.after_s is not None:
        _check_span(remind.after_s, 0.0, "after_s")
    elif remind.repeat is None:
        raise Refused("A reminder needs a time.", field="at", next="Give `at`, `after_s` or `repeat`.")
    match remind.repeat:
        case Every(seconds=seconds):
            _check_span(seconds, EVERY_S_MIN, "repeat.seconds")
        case Cron() as cron:
            _next_cron(cron, ANY_TIME)  # whether it ever comes
        case None:
            pass


def _check_at(remind: Remind) -> None:
    assert remind.at is not None
    if remind.after_s is not None:
        raise Refused("A reminder has one first time.", field="after_s", next="Give `at` or `after_s`.")
    if remind.at.utcoffset() is None:
        raise Refused("`at` needs a time zone.", field="at", next="Give an aware time, such as one in UTC.")
    if not YEAR_MIN <= remind.at.year <= YEAR_MAX:
        raise Refused(f"`at` is in the years {YEAR_MIN} to {YEAR_MAX}.", field="at")


def _check_span(seconds: float, least: float, field: str) -> None:
    if not least <= seconds <= SPAN_S_MAX:  # not a number is in no range
        raise Refused(f"`{field}` is {least:g} to {SPAN_S_MAX:g} seconds.", field=field)


def _next(repeat: Repeat, due: datetime, after: datetime) -> datetime:
    """The first time after `after` of a repetition that has one at `due`."""
    if isinstance(repeat, Cron):
        return _next_cron(repeat, after)
    period = timedelta(seconds=repeat.seconds)
    return due + ((after - due) // period + 1) * period


def _next_cron(cron: Cron, after: datetime) -> datetime:
    try:
        for time in CronSim(_five_fields(cron.expression), after.astimezone(_zone(cron.zone))):
            # In the hour that comes twice, `cronsim` may name its first time to one who is in its second.
            if time.astimezone(UTC) > after:
                return time.astimezone(UTC)
    except CronSimError as error:
        raise Refused(
            f"{cron.expression!r} is no cron expression: {error}.", field="repeat.expression"
        ) from None
    raise Refused(f"{cron.expression!r} never comes.", field="repeat.expression")


def _five_fields(expression: str) -> str:
    if len(expression) > EXPRESSION_CHARACTERS_MAX or len(expression.split()) != CRON_FIELDS:
        raise Refused(
            f"A cron expression has {CRON_FIELDS} fields in at most {EXPRESSION_CHARACTERS_MAX} characters.",
            field="repeat.expression",
            next="Minute, hour, day of month, month, day of week; for seconds use `Every`.",
        )
    return expression


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; no name at all; a folder of names
        raise Refused(f"{name!r} is no time zone.", field="repeat.zone", next="Use an IANA name.") from None
