"""Due times: cron on the clocks of a zone, periods that don't drift, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla.core.errors import Refused
from flotilla.core.policy.schedule import check, first_due, following
from flotilla.core.reminders import Cron, Every, Remind, Reminder, Repeat

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
# Days on which the clocks of a zone change, on its own calendar.
CHANGES: dict[str, list[tuple[int, int, int]]] = {
    "UTC": [(2024, 2, 29)],
    "Europe/Berlin": [(2024, 3, 31), (2024, 10, 27)],
    "America/New_York": [(2024, 3, 10), (2024, 11, 3)],
    "America/Santiago": [(2024, 4, 7), (2024, 9, 8)],  # at midnight
    "Africa/Cairo": [(2024, 4, 26), (2024, 10, 31)],  # at midnight
    "Asia/Kathmandu": [(2024, 1, 1)],  # 5:45 ahead, never changed
}
ZONES = st.sampled_from(sorted(CHANGES))
TIMES = st.datetimes(datetime(2023, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)).map(
    lambda time: time.replace(microsecond=0)
)


def near_a_change(zone: str) -> st.SearchStrategy[datetime]:
    days = st.sampled_from([datetime(*day, tzinfo=UTC) for day in CHANGES[zone]])
    seconds = st.integers(-30 * 3600, 30 * 3600)
    return st.tuples(days, seconds).map(lambda pair: pair[0] + timedelta(seconds=pair[1]))


ZONE_AND_TIME = ZONES.flatmap(lambda zone: st.tuples(st.just(zone), near_a_change(zone) | TIMES))


def times(expression: str, zone: str, after: datetime, count: int) -> list[datetime]:
    """The next due times."""
    cron = Cron(expression=expression, zone=zone)
    found = [first_due(Remind(name="r", repeat=cron), after)]
    while len(found) < count:
        next = following(Reminder(name="r", due=found[-1], repeat=cron), after)
        assert next is not None
        found.append(next.due)
    assert all(time.tzinfo is UTC for time in found)
    return found


def shown(expression: str, zone: str, after: datetime, count: int) -> list[str]:
    """The same on the clock of the zone."""
    found = [time.astimezone(ZoneInfo(zone)) for time in times(expression, zone, after, count)]
    return [time.strftime("%m-%d %H:%M %z") for time in found]


# -- cron


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        ("Europe/Berlin", (2026, 3, 28), ["03-28 02:30 +0100", "03-29 03:00 +0200", "03-30 02:30 +0200"]),
        ("America/New_York", (2026, 3, 7), ["03-07 02:30 -0500", "03-08 03:00 -0400", "03-09 02:30 -0400"]),
    ],
)
def test_a_time_that_summer_time_skips_comes_right_after_it(
    zone: str, day: tuple[int, int, int], expected: list[str]
) -> None:
    assert shown("30 2 * * *", zone, datetime(*day, tzinfo=ZoneInfo(zone)), 3) == expected


@pytest.mark.parametrize(
    ("zone", "day", "expression", "expected"),
    [
        (
            "Europe/Berlin",
            (2026, 10, 24),
            "30 2 * * *",
            ["10-24 02:30 +0200", "10-25 02:30 +0200", "10-26 02:30 +0100"],
        ),
        (
            "America/New_York",
            (2026, 10, 31),
            "30 1 * * *",
            ["10-31 01:30 -0400", "11-01 01:30 -0400", "11-02 01:30 -0500"],
        ),
    ],
)
def test_a_time_that_happens_twice_comes_once(
    zone: str, day: tuple[int, int, int], expression: str, expected: list[str]
) -> None:
    assert shown(expression, zone, datetime(*day, tzinfo=ZoneInfo(zone)), 3) == expected


def test_set_in_the_second_of_two_like_hours_it_does_not_come_before_it_is_set() -> None:
    now = datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))
    assert shown("30 2 * * *", "Europe/Berlin", now, 1) == ["10-26 02:30 +0100"]


def test_every_quarter_of_an_hour_goes_on_through_both_changes() -> None:
    for day in ((2026, 3, 29), (2026, 10, 25)):
        found = times("*/15 * * * *", "Europe/Berlin", datetime(*day, tzinfo=UTC), 12)
        seconds = [time.timestamp() for time in found]
        assert {b - a for a, b in pairwise(seconds)} == {900.0}


def test_skipped_times_that_fall_together_come_once() -> None:
    midnight = datetime(2026, 3, 29, tzinfo=ZoneInfo("Europe/Berlin"))
    assert shown("0 2,3 * * *", "Europe/Berlin", midnight, 2) == ["03-29 03:00 +0200", "03-30 02:00 +0200"]


def test_leap_days_and_last_days() -> None:
    start = datetime(2096, 1, 1, tzinfo=UTC)  # 2100 is no leap year
    assert [t.year for t in times("0 0 29 2 *", "UTC", start, 3)] == [2096, 2104, 2108]
    start = datetime(2024, 1, 31, 12, tzinfo=UTC)
    assert [(t.month, t.day) for t in times("0 9 L * *", "UTC", start, 3)] == [(2, 29), (3, 31), (4, 30)]
    assert [(t.month, t.day) for t in times("0 9 * * 5L", "UTC", start, 2)] == [(2, 23), (3, 29)]
    assert [(t.month, t.day) for t in times("0 9 * * MON#2", "UTC", start, 2)] == [(2, 12), (3, 11)]


def matches(time: datetime, minutes: set[int], hours: set[int], days: set[int], weekdays: set[int]) -> bool:
    on_day = time.day in days and time.isoweekday() % 7 in weekdays
    return time.minute in minutes and time.hour in hours and on_day


ANY_DAY, ANY_HOUR, ANY_WEEKDAY = set(range(1, 32)), set(range(24)), set(range(7))
OFTEN = {
    "*/20 * * * *": ({0, 20, 40}, ANY_HOUR, ANY_DAY, ANY_WEEKDAY),
    "7 * * * *": ({7}, ANY_HOUR, ANY_DAY, ANY_WEEKDAY),
    "*/30 0-3 * * *": ({0, 30}, {0, 1, 2, 3}, ANY_DAY, ANY_WEEKDAY),
    "0 */2 * * 0,6": ({0}, set(range(0, 24, 2)), ANY_DAY, {0, 6}),
}
FIXED = {
    "30 2 * * *": ({30}, {2}, ANY_DAY, ANY_WEEKDAY),
    "0,45 0-3 * * *": ({0, 45}, {0, 1, 2, 3}, ANY_DAY, ANY_WEEKDAY),
    "15 1,2,3 * * 0": ({15}, {1, 2, 3}, ANY_DAY, {0}),
    "59 23 1-10 * *": ({59}, {23}, set(range(1, 11)), ANY_WEEKDAY),
}


@settings(max_examples=120)
@given(st.sampled_from(sorted(OFTEN)), ZONE_AND_TIME)
def test_every_so_often_is_whenever_the_clock_shows_it(
    expression: str, zone_and_time: tuple[str, datetime]
) -> None:
    zone, after = zone_and_time
    found = times(expression, zone, after, 4)
    time, shown_by_clock = after.replace(second=0, microsecond=0) + MINUTE, list[datetime]()
    while time <= found[-1]:
        if matches(time.astimezone(ZoneInfo(zone)), *OFTEN[expression]):
            shown_by_clock.append(time)
        time += MINUTE
    assert found == shown_by_clock


@settings(max_examples=120)
@given(st.sampled_from(sorted(FIXED)), ZONE_AND_TIME)
def test_a_fixed_time_comes_once_each_day_that_has_it(
    expression: str, zone_and_time: tuple[str, datetime]
) -> None:
    zone, after = zone_and_time
    found = times(expression, zone, after, 4)
    on_paper, last = (t.astimezone(ZoneInfo(zone)).replace(tzinfo=None, second=0) for t in (after, found[-1]))
    time, expected = on_paper - timedelta(hours=3), set[datetime]()
    while time <= last:
        if matches(time, *FIXED[expression]):
            expected.add(real(time, zone))
        time += MINUTE
    assert found == sorted(time for time in expected if after < time <= found[-1])


def real(on_paper: datetime, zone: str) -> datetime:
    """The first instant at which the clock of the zone shows this time, or else the first after it."""
    instant = on_paper.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    while instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None) != on_paper:
        on_paper += MINUTE
        instant = on_paper.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    return instant


# -- first and following


def test_first_due() -> None:
    berlin = datetime(2026, 11, 22, 8, tzinfo=ZoneInfo("Europe/Berlin"))
    assert first_due(Remind(name="r", at=berlin), NOW) == datetime(2026, 11, 22, 7, tzinfo=UTC)
    assert first_due(Remind(name="r", after_s=1.5), NOW) == NOW + timedelta(seconds=1.5)
    assert first_due(Remind(name="r", after_s=0), NOW) == NOW
    assert first_due(Remind(name="r", repeat=Every(seconds=90)), NOW) == NOW + timedelta(seconds=90)
    assert first_due(Remind(name="r", at=berlin, repeat=Every(seconds=90)), NOW) == berlin
    assert first_due(Remind(name="r", repeat=Cron(expression="30 9 * * *")), NOW) == NOW + timedelta(days=1)


def test_a_one_shot_has_nothing_following() -> None:
    assert following(Reminder(name="r", due=NOW), NOW) is None


REPEATS = (
    st.builds(Every, seconds=st.floats(1, 10_000) | st.integers(1, 1000).map(lambda n: n + 1 / 3))
    | st.builds(Cron, expression=st.sampled_from(sorted(OFTEN | FIXED)), zone=ZONES)
)  # fmt: skip


@given(REPEATS, TIMES | near_a_change("Europe/Berlin"))
def test_each_missed_time_comes_late_in_order(repeat: Repeat, due: datetime) -> None:
    reminder = Reminder(name="r", due=due, repeat=repeat, all_missed=True)
    next = following(reminder, due + timedelta(days=400))
    assert next == following(reminder, due)
    assert next is not None and next.due > due
    assert (next.name, next.repeat, next.all_missed) == ("r", repeat, True)


@given(
    REPEATS, TIMES | near_a_change("Europe/Berlin"), st.floats(-3, 3).map(lambda days: timedelta(days=days))
)
def test_otherwise_one_comes_for_all_that_were_missed(repeat: Repeat, now: datetime, late: timedelta) -> None:
    due = now - late  # when it is negative, the clock was set back after it had fired
    next = following(Reminder(name="r", due=due, repeat=repeat, all_missed=False), now)
    assert next is not None and next.due > max(due, now)
    one_by_one = Reminder(name="r", due=due, repeat=repeat)
    for _ in range(200):
        step = following(one_by_one, now)
        assert step is not None
        one_by_one = step
        if one_by_one.due > now:
            break
    else:
        assert next.due > one_by_one.due
        return
    assert next.due == one_by_one.due


def test_a_period_does_not_drift() -> None:
    reminder = Reminder(name="r", due=NOW, repeat=Every(seconds=0.1 + 0.9), all_missed=False)
    late = following(reminder, NOW + timedelta(days=365, seconds=0.7))
    assert late is not None
    assert late.due == NOW + timedelta(days=365, seconds=1)


# -- refused


@pytest.mark.parametrize(
    ("remind", "field"),
    [
        (Remind(name="r"), "at"),
        (Remind(name="", after_s=1), "name"),
        (Remind(name="x" * 201, after_s=1), "name"),
        (Remind(name="a\0b", after_s=1), "name"),
        (Remind(name="r", at=datetime(2026, 11, 21)), "at"),
        (Remind(name="r", at=datetime(9999, 1, 1, tzinfo=UTC)), "at"),
        (Remind(name="r", at=NOW, after_s=1), "after_s"),
        (Remind(name="r", after_s=-0.1), "after_s"),
        (Remind(name="r", after_s=float("nan")), "after_s"),
        (Remind(name="r", after_s=float("inf")), "after_s"),
        (Remind(name="r", repeat=Every(seconds=0.999)), "repeat.seconds"),
        (Remind(name="r", at=NOW, repeat=Every(seconds=-5)), "repeat.seconds"),
        (Remind(name="r", repeat=Every(seconds=float("nan"))), "repeat.seconds"),
        (Remind(name="r", repeat=Every(seconds=1e300)), "repeat.seconds"),
        (Remind(name="r", repeat=Cron(expression="* * * *")), "repeat.expression"),
        (Remind(name="r", repeat=Cron(expression="* * * * * *")), "repeat.expression"),
        (Remind(name="r", at=NOW, repeat=Cron(expression="60 * * * *")), "repeat.expression"),
        (Remind(name="r", repeat=Cron(expression="0 0 31 2 *")), "repeat.expression"),
        (Remind(name="r", repeat=Cron(expression="0 0 */30 2 1#5")), "repeat.expression"),
        (Remind(name="r", repeat=Cron(expression="9" * 5000 + " * * * *")), "repeat.expression"),
        (Remind(name="r", repeat=Cron(expression="0 9 * * *", zone="Mars/Olympus")), "repeat.zone"),
        (Remind(name="r", repeat=Cron(expression="0 9 * * *", zone="")), "repeat.zone"),
        (Remind(name="r", repeat=Cron(expression="0 9 * * *", zone="../etc/passwd")), "repeat.zone"),
        (Remind(name="r", repeat=Cron(expression="0 9 * * *", zone="Europe")), "repeat.zone"),
        (Remind(name="r", repeat=Cron(expression="0 9 * * *", zone="a\0b")), "repeat.zone"),
    ],
)
def test_what_cannot_be_set_is_refused_with_its_field(remind: Remind, field: str) -> None:
    for refuse in (lambda: check(remind), lambda: first_due(remind, NOW)):
        with pytest.raises(Refused) as refused:
            refuse()
        assert refused.value.field == field


CRON_TEXT = st.lists(st.text("*/,-L#W0123456789", min_size=1, max_size=6), min_size=5, max_size=5).map(
    " ".join
)


@settings(max_examples=300)
@given(CRON_TEXT, ZONES)
def test_any_expression_is_either_refused_or_comes(expression: str, zone: str) -> None:
    remind = Remind(name="r", repeat=Cron(expression=expression, zone=zone))
    try:
        check(remind)
    except Refused as refused:
        assert refused.field == "repeat.expression"
    else:
        assert first_due(remind, NOW) > NOW
