"""The generic cell rate algorithm, on a clock that the test turns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flotilla.core.policy.gcra import Quota, take

QUOTAS = st.builds(Quota, burst=st.integers(1, 1000), every_s=st.floats(1e-4, 100.0))
STEPS = st.lists(st.tuples(st.floats(0.0, 50.0), st.integers(0, 50)), max_size=40)


@given(QUOTAS, STEPS)
def test_no_stretch_of_time_gives_more_than_the_burst_and_what_came_back(
    quota: Quota, steps: list[tuple[float, int]]
) -> None:
    tat, now, given_out = 0.0, 1000.0, list[tuple[float, int]]()
    for pause, wanted in steps:
        now += pause
        taken, tat = take(quota, tat, now, wanted)
        assert 0 <= taken.granted <= wanted and taken.left >= 0
        given_out.append((now, taken.granted))
    for at, (began, _) in enumerate(given_out):
        for ended, _ in given_out[at:]:
            within = sum(count for when, count in given_out if began <= when <= ended)
            assert within <= quota.burst + (ended - began) / quota.every_s + 1e-3


@given(QUOTAS, STEPS)
def test_who_waits_as_long_as_is_said_gets_one_and_not_sooner(
    quota: Quota, steps: list[tuple[float, int]]
) -> None:
    tat, now = 0.0, 1000.0
    for pause, wanted in steps:
        now += pause
        taken, tat = take(quota, tat, now, wanted)
        if taken.granted or not wanted:
            assert taken.retry_after_s == 0.0
            continue
        wait_s = taken.retry_after_s
        assert 0 < wait_s <= quota.every_s + 1e-9
        assert take(quota, tat, now + wait_s + 1e-6, 1)[0].granted == 1
        assert take(quota, tat, now + wait_s * 0.9 - 1e-3, 1)[0].granted == 0


@given(QUOTAS)
def test_a_bucket_that_rests_is_full_when_it_says(quota: Quota) -> None:
    taken, tat = take(quota, 0.0, 1000.0, quota.burst)
    assert taken.granted == quota.burst and taken.left == 0
    full, _ = take(quota, tat, 1000.0 + taken.full_in_s + 1e-6, quota.burst)
    assert full.granted == quota.burst


def test_shares_of_gateways_add_up_to_the_whole() -> None:
    share = Quota(burst=100, every_s=0.01).share(4)
    assert (share.burst, share.every_s) == (25, 0.04)
    assert Quota(burst=1, every_s=1.0).share(3).burst == 1
