"""How many tokens a tenant may use."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flotilla.core.errors import LimitReached
from flotilla.core.policy.allowance import Allowance, check, left

NOON = datetime(2026, 12, 31, 12, 0, tzinfo=UTC)
DAY, MONTH = Allowance(tokens_per_day=100), Allowance(tokens_per_month=1000)
BOTH = Allowance(tokens_per_day=100, tokens_per_month=1000)


def test_without_a_bound_nothing_is_counted() -> None:
    assert left(Allowance(), today=10**9, month=10**9, now=NOON) is None and not Allowance().bounded
    check(None)


def test_the_tighter_of_two_bounds_is_what_is_left() -> None:
    found = left(BOTH, today=10, month=950, now=NOON)
    assert found and (found.span, found.tokens, found.limit) == ("month", 50, 1000)
    found = left(BOTH, today=90, month=500, now=NOON)
    assert found and (found.span, found.tokens, found.limit) == ("day", 10, 100)


def test_spans_end_at_midnight_in_utc() -> None:
    half_a_day = 12 * 3600
    for allowance in (DAY, MONTH):  # the last day of a year
        found = left(allowance, today=0, month=0, now=NOON)
        assert found and found.resets_s == half_a_day
    found = left(MONTH, today=0, month=0, now=NOON.replace(month=2, day=1))
    assert found and found.resets_s == 27 * 86_400 + half_a_day


def test_what_is_used_up_says_until_when() -> None:
    with pytest.raises(LimitReached, match="100 tokens of this day") as refused:
        check(left(DAY, today=100, month=100, now=NOON))
    assert refused.value.retry_after_s == 12 * 3600 and refused.value.next
    early = NOON.replace(day=2)
    with pytest.raises(LimitReached, match="month") as both:  # it lasts longer
        check(left(BOTH, today=150, month=1500, now=early))
    assert both.value.retry_after_s and both.value.retry_after_s > 86_400
    check(left(DAY, today=99, month=99, now=NOON))
