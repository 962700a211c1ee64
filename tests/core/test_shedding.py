"""What is let in, and what is refused: on queues of numbers, without a clock."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla.core.errors import Overloaded
from flotilla.core.policy.shedding import RETRY_LEAST_S, RETRY_MOST_S, Shedding, Terms

TICK_S = 0.1
TARGET_S = 0.25
SERVED_PER_S = 70.0
IN_TIME_S = 1.0


class Plant:
    """One server that takes a turn at a time, and says after `lag_s` that one is through."""

    def __init__(self, shedding: Shedding, chance: Random, lag_s: float = 0.0) -> None:
        self.shedding = shedding
        self.asked: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.in_time: Counter[str] = Counter()
        self._chance, self._lag_s = chance, lag_s
        self._queue: deque[tuple[float, str]] = deque()
        self._reports: list[tuple[float, float, str]] = []
        self._free_at = self._now = 0.0
        self._tick_at = TICK_S

    def run(self, seconds: float, rates: dict[str, float]) -> None:
        """Arrivals of each tenant, so many a second."""
        until = self._now + seconds
        while self._now < until:
            self._now += self._chance.expovariate(sum(rates.values()))
            while self._tick_at <= self._now:
                self._until(self._tick_at)
                self.shedding.tick(TICK_S)
                self._tick_at += TICK_S
            self._until(self._now)
            self._arrives(self._now, self._chance.choices(list(rates), list(rates.values()))[0])

    def _arrives(self, now: float, tenant: str) -> None:
        self.asked[tenant] += 1
        try:
            self.shedding.check(tenant)
        except Overloaded as error:
            assert error.retry_after_s and RETRY_LEAST_S <= error.retry_after_s <= RETRY_MOST_S
            self.refused[tenant] += 1
        else:
            self.shedding.enter(tenant)
            self._queue.append((now, tenant))

    def _until(self, now: float) -> None:
        while self._queue and max(self._free_at, self._queue[0][0]) < now:
            came, tenant = self._queue.popleft()
            self._free_at = max(self._free_at, came) + self._chance.expovariate(SERVED_PER_S)
            self.in_time[tenant] += self._free_at - came <= IN_TIME_S
            heapq.heappush(self._reports, (self._free_at + self._lag_s, self._free_at - came, tenant))
        while self._reports and self._reports[0][0] <= now:
            _, waited_s, tenant = heapq.heappop(self._reports)
            self.shedding.waited("server", waited_s)
            self.shedding.through(tenant)


def plant(seed: int = 1, lag_s: float = 0.0) -> Plant:
    chance = Random(seed)
    return Plant(Shedding({"server": TARGET_S}, chance=chance), chance, lag_s)


@pytest.mark.parametrize("lag_s", [0.0, 0.2])
@pytest.mark.parametrize("times", [1.5, 3.0, 6.0])
def test_however_much_comes_as_much_is_done_in_time(times: float, lag_s: float) -> None:
    """Two seconds in thirty are for finding out."""
    here = plant(lag_s=lag_s)
    here.run(30.0, {"a": times * SERVED_PER_S})
    assert here.in_time.total() >= 0.85 * 30.0 * SERVED_PER_S


def test_below_its_limit_it_refuses_next_to_nothing() -> None:
    here = plant()
    here.run(30.0, {"a": 0.7 * SERVED_PER_S})
    assert here.refused.total() <= 0.01 * here.asked.total()


def test_a_quiet_tenant_beside_a_flooding_one_loses_nothing() -> None:
    here = plant()
    here.run(30.0, {"flood": 10 * SERVED_PER_S})  # it has found its limit by now
    before, lost = here.asked["quiet"], here.refused["quiet"]
    here.run(30.0, {"flood": 10 * SERVED_PER_S, "quiet": 2.0})
    assert here.asked["quiet"] - before > 30 and here.refused["quiet"] == lost
    assert here.in_time["quiet"] >= 0.95 * here.asked["quiet"]


def test_two_floods_get_about_the_same() -> None:
    here = plant()
    here.run(30.0, {"ten": 10 * SERVED_PER_S, "two": 2 * SERVED_PER_S})
    ten, two = (here.asked[name] - here.refused[name] for name in ("ten", "two"))
    assert 0.6 <= two / ten <= 1.67


def test_it_opens_again_when_the_wave_is_over() -> None:
    here = plant()
    here.run(20.0, {"a": 5 * SERVED_PER_S})
    here.run(10.0, {"a": 0.5 * SERVED_PER_S})
    refused = here.refused.total()
    here.run(10.0, {"a": 0.5 * SERVED_PER_S})
    assert here.refused.total() == refused


def test_one_slow_turn_is_no_queue() -> None:
    shedding = Shedding({"server": TARGET_S})
    for _ in range(100):
        shedding.waited("server", 20 * TARGET_S)
        shedding.waited("server", 0.001)
        shedding.tick(TICK_S)
    assert shedding.limit == Terms().first


def test_what_does_not_get_through_at_all_counts_by_its_age() -> None:
    shedding = Shedding({"journal": TARGET_S})
    for _ in range(30):
        shedding.enter("a")
    for tick in range(30):
        shedding.tick(TICK_S, {"journal": tick * TICK_S})
    assert shedding.reason == "journal"
    with pytest.raises(Overloaded, match="journal"):
        shedding.check("a")


def test_a_few_turns_get_in_whatever_is_measured() -> None:
    shedding = Shedding({"loop": 0.01})
    for _ in range(100):
        shedding.waited("loop", 5.0)
        shedding.tick(TICK_S)
    for _ in range(3):
        shedding.check("a")
        shedding.enter("a")


def test_without_targets_all_is_let_in() -> None:
    shedding = Shedding({})
    shedding.waited("loop", 9.0)
    shedding.tick(TICK_S)
    for _ in range(10_000):
        shedding.check("a")
    assert shedding.counts.total() == 0


def test_those_refused_together_do_not_come_back_together() -> None:
    shedding = Shedding({"loop": 0.01}, chance=Random(1))
    said = {shedding.refusal().retry_after_s for _ in range(50)}
    assert len(said) > 20 and min(s or 0 for s in said) >= RETRY_LEAST_S


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("abc")),
        st.tuples(st.just("through"), st.sampled_from("abc")),
        st.tuples(st.just("tick"), st.floats(0.0, 30.0)),
    ),
    max_size=200,
)


@settings(max_examples=100)
@given(STEPS)
def test_the_books_balance_and_the_bound_holds(steps: list[tuple[str, str | float]]) -> None:
    shedding, inside, limit = Shedding({"q": TARGET_S}), Counter[str](), 0.0
    for what, of in steps:
        if what == "tick":
            shedding.waited("q", float(of))
            shedding.tick(TICK_S)
        elif what == "through" and inside[str(of)]:
            inside[str(of)] -= 1
            shedding.through(str(of))
        elif what == "ask":
            try:
                shedding.check(str(of))
            except Overloaded as error:
                assert error.retry_after_s and shedding.waiting >= 1
            else:
                inside[str(of)] += 1
                limit = max(limit, shedding.limit)
                assert inside.total() <= 2 * limit
                shedding.enter(str(of))
        assert shedding.waiting == inside.total()
        assert Terms().least <= shedding.limit <= Terms().most
        assert 0.0 <= shedding.refused <= 1.0
