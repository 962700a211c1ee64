"""What a gateway refuses without asking."""

from __future__ import annotations

from random import Random

from flotilla.core.policy.throttling import SENT_PER_ACCEPTED, Throttle


def run(throttle: Throttle, *, seconds: float, per_s: float, accepts_per_s: float, chance: Random) -> int:
    """How many were sent to a host that accepts so many a second."""
    sent, accepted, now = 0, 0, 0.0
    while now < seconds:
        now += 1 / per_s
        throttle.asked("host\0a", now)
        if chance.random() < throttle.share("host\0a", now):
            continue
        sent += 1
        if accepted < accepts_per_s * now:
            accepted += 1
            throttle.accepted("host\0a", now)
    return sent


def test_while_all_is_accepted_all_is_sent() -> None:
    assert run(Throttle(), seconds=10, per_s=200, accepts_per_s=1e9, chance=Random(1)) >= 1999


def test_past_the_limit_a_part_more_is_sent_than_is_accepted() -> None:
    sent = run(Throttle(), seconds=20, per_s=500, accepts_per_s=50, chance=Random(1))
    assert 50 * 20 * 1.1 < sent < 50 * 20 * SENT_PER_ACCEPTED * 1.3


def test_when_the_host_takes_all_again_all_is_sent_again() -> None:
    throttle, chance = Throttle(), Random(1)
    run(throttle, seconds=10, per_s=500, accepts_per_s=20, chance=chance)
    now = 10.0
    for _ in range(2000):  # ten seconds of all accepted
        now += 0.005
        throttle.asked("host\0a", now)
        if chance.random() >= throttle.share("host\0a", now):
            throttle.accepted("host\0a", now)
    assert throttle.share("host\0a", now) == 0.0


def test_one_tenant_is_not_throttled_for_another() -> None:
    throttle = Throttle()
    for n in range(1000):
        throttle.asked("host\0flood", n / 1000)
    assert throttle.share("host\0flood", 1.0) > 0.9 and throttle.share("host\0quiet", 1.0) == 0.0
