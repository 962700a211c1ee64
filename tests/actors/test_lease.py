"""A process knows how long it can't have been taken for dead."""

from __future__ import annotations

from actors.lease import BEAT_KEPT_S, Lease
from flotilla.stores import valkey


def test_who_has_never_beaten_may_show_nothing() -> None:
    assert not Lease().valid(0.0) and not Lease().valid(1e9)


def test_a_beat_is_good_for_as_long_as_the_directory_keeps_it() -> None:
    lease = Lease()
    lease.renew(100.0)
    assert lease.valid(100.0) and lease.valid(100.0 + BEAT_KEPT_S - 0.001)
    assert not lease.valid(100.0 + BEAT_KEPT_S)


def test_who_was_stopped_in_between_may_show_nothing_until_it_has_beaten_again() -> None:
    lease = Lease()
    lease.renew(100.0)
    assert not lease.valid(160.0)
    lease.renew(160.1)
    assert lease.valid(160.2)


def test_an_older_beat_that_is_confirmed_late_takes_nothing_back() -> None:
    lease = Lease()
    lease.renew(102.0)
    lease.renew(101.0)
    assert lease.beaten_at == 102.0


def test_the_lease_is_no_longer_than_what_the_directory_keeps() -> None:
    assert valkey.BEAT_KEPT_MS >= BEAT_KEPT_S * 1000
