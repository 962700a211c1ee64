"""Patience: pauses that grow and differ, and a breaker that knows when to leave something alone."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla.core.errors import FlotillaError, NotFound, Overloaded, Refused, Unavailable
from flotilla.core.policy.breaker import Breaker, BreakerSettings
from flotilla.core.policy.retry import Patience, passes, pause_after, pauses

# -- pauses


@given(st.integers(0, 2**32))
def test_pauses_double_up_to_a_bound_and_differ(seed: int) -> None:
    patience = Patience(first_s=0.1, longest_s=1.0, tries_max=12)
    found = list(pauses(patience, Random(seed)))
    bounds = [0.1, 0.2, 0.4, 0.8, *[1.0] * 7]
    assert len(found) == 11
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(found, bounds, strict=True))
    assert found == list(pauses(patience, Random(seed))), "chance is a port"


def test_callers_that_failed_together_do_not_come_back_together() -> None:
    assert len({next(pauses(Patience(), Random(seed))) for seed in range(20)}) == 20


def test_one_try_has_no_pause() -> None:
    assert list(pauses(Patience(tries_max=1), Random(0))) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [(Unavailable("x"), True), (Overloaded("x"), True), (Refused("x"), False), (NotFound("x"), False)],
)
def test_only_what_passes_is_tried_again(error: FlotillaError, expected: bool) -> None:
    assert passes(error) is expected


def test_nobody_comes_back_sooner_than_he_was_asked_to() -> None:
    assert pause_after(Overloaded("x", retry_after_s=3.0), 0.1) == 3.0
    assert pause_after(Overloaded("x"), 0.1) == 0.1


# -- the breaker

SETTINGS = BreakerSettings(window_s=10.0, calls_min=4, failed_share=0.5, open_s=5.0)


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker("mail", SETTINGS)
    for _ in range(4):
        breaker.admit(at)
        breaker.note(at, False)
    return breaker


def test_it_opens_when_too_large_a_share_fails() -> None:
    breaker = Breaker("mail", SETTINGS)
    for n, ok in enumerate([True, True, False]):
        breaker.note(float(n), ok)
    assert breaker.state(3.0) == "closed", "three calls say nothing"
    breaker.note(3.0, False)
    assert breaker.state(3.0) == "open" and "open" in repr(breaker)


def test_it_says_when_to_come_again() -> None:
    breaker = opened()
    with pytest.raises(Unavailable) as refusal:
        breaker.admit(2.0)
    assert refusal.value.retry_after_s == 3.0


def test_failures_are_forgotten() -> None:
    breaker = Breaker("mail", SETTINGS)
    for n in range(3):
        breaker.note(float(n), False)
    for n in range(4):
        breaker.note(20.0 + n, n > 0)
    assert breaker.state(24.0) == "closed"


@pytest.mark.parametrize(("ok", "then"), [(True, "closed"), (False, "open")])
def test_one_call_is_let_through_to_see(ok: bool, then: str) -> None:
    breaker = opened()
    assert breaker.state(5.0) == "half-open"
    breaker.admit(5.0)
    with pytest.raises(Unavailable):
        breaker.admit(5.1)
    breaker.note(6.0, ok)
    assert breaker.state(6.0) == then
    if ok:
        breaker.note(6.1, False)
        assert breaker.state(6.1) == "closed", "it begins anew"
    else:
        with pytest.raises(Unavailable):
            breaker.admit(10.9)


def test_a_probe_that_never_reports_is_followed_by_another() -> None:
    breaker = opened()
    breaker.admit(5.0)
    breaker.admit(10.0)


def test_calls_from_before_it_opened_change_nothing() -> None:
    breaker = opened()
    breaker.note(1.0, True)
    assert breaker.state(1.0) == "open"
    breaker.note(5.5, True)
    assert breaker.state(5.5) == "half-open"


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=80))
def test_it_never_refuses_for_longer_than_it_says(calls: list[tuple[float, bool]]) -> None:
    breaker, now = Breaker("mail", SETTINGS), 0.0
    for pause_s, ok in calls:
        now += pause_s
        try:
            breaker.admit(now)
        except Unavailable as refusal:
            assert refusal.retry_after_s is not None and refusal.retry_after_s <= SETTINGS.open_s
            breaker.admit(now + refusal.retry_after_s + 0.001)
            breaker.note(now := now + refusal.retry_after_s + 0.001, ok)
        else:
            breaker.note(now, ok)
