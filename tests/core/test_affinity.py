"""Where a conversation goes: back to its replica, unless that has too much to do."""

from __future__ import annotations

import random
from collections import Counter
from time import thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla.core.policy.affinity import SKEW_MAX, SLACK_TOKENS, Affinity, scores

NAMES = [f"m@1.{n}" for n in range(8)]
IDLE = [0.0] * len(NAMES)
KEYS = [f"bank/c_{n}" for n in range(4000)]


def test_processes_that_know_nothing_agree_whatever_the_order_of_names() -> None:
    shuffled = random.Random(1).sample(NAMES, len(NAMES))
    for key in KEYS[:200]:
        assert NAMES[Affinity().pick(key, NAMES, IDLE)] == shuffled[Affinity().pick(key, shuffled, IDLE)]


def test_conversations_are_spread_evenly() -> None:
    counts = Counter(Affinity().pick(key, NAMES, IDLE) for key in KEYS)
    assert len(counts) == len(NAMES)
    assert max(counts.values()) / (len(KEYS) / len(NAMES)) < 1.2


def test_who_comes_or_goes_moves_only_its_own() -> None:
    before = {key: NAMES[Affinity().pick(key, NAMES, IDLE)] for key in KEYS}
    fewer = NAMES[:-1]
    after = {key: fewer[Affinity().pick(key, fewer, IDLE[:-1])] for key in KEYS}
    moved = [key for key in KEYS if before[key] != after[key]]
    assert moved and {before[key] for key in moved} == {NAMES[-1]}


def test_a_conversation_stays_where_it_was_answered() -> None:
    mind = Affinity()
    elsewhere = NAMES[(mind.pick("a/b", NAMES, IDLE) + 3) % len(NAMES)]
    mind.remember("a/b", elsewhere, 900)
    assert NAMES[mind.pick("a/b", NAMES, IDLE)] == elsewhere
    assert mind.held("a/b", elsewhere) == 900
    assert mind.held("a/b", "m@1.other") == mind.held("a/c", elsewhere) == 0


def test_a_replica_that_is_gone_is_passed_over() -> None:
    mind = Affinity()
    mind.remember("a/b", "m@1.99", 900)
    assert mind.pick("a/b", NAMES, IDLE) == Affinity().pick("a/b", NAMES, IDLE)


def test_a_full_home_sends_to_the_least_loaded_of_the_next_few() -> None:
    mind, loads = Affinity(), [1700.0] * len(NAMES)
    order = sorted(range(len(NAMES)), key=scores("a/b", NAMES).__getitem__, reverse=True)
    home, second, third = order[:3]
    mind.remember("a/b", NAMES[home], 900)
    loads[home], loads[second], loads[third] = 10_000.0, 1500.0, 1000.0
    assert mind.pick("a/b", NAMES, loads) == third
    loads[third] = 1600.0
    assert mind.pick("a/b", NAMES, loads) == second


def test_a_prefix_is_worth_a_wait_as_long_as_reading_it_again() -> None:
    mind, loads = Affinity(), list(IDLE)
    mind.remember("a/b", NAMES[3], 4000)
    loads[3] = 3500.0
    assert mind.pick("a/b", NAMES, loads, 4100.0) == 3
    loads[3] = 9000.0
    assert mind.pick("a/b", NAMES, loads, 4100.0) != 3


loads_of_some = st.lists(st.floats(0, 1e6), min_size=1, max_size=64)


@given(loads_of_some, st.text(min_size=1, max_size=20), st.integers(0, 63))
def test_nobody_is_given_more_than_the_bound(loads: list[float], key: str, home: int) -> None:
    mind = Affinity()
    names = [f"r.{n}" for n in range(len(loads))]
    mind.remember(key, f"r.{home}", 10)
    at = mind.pick(key, names, loads, 100.0)
    held = mind.held(key, names[at])
    assert loads[at] <= SKEW_MAX * (sum(loads) + 100.0) / len(loads) + SLACK_TOKENS + held


def test_loads_stay_within_the_bound_when_all_want_the_same_replica() -> None:
    mind, loads = Affinity(slack_tokens=0.0), list(IDLE)
    for n in range(2000):
        mind.remember(f"k{n}", NAMES[0], 10)
        loads[mind.pick(f"k{n}", NAMES, loads, 50.0)] += 50.0
    assert max(loads) <= SKEW_MAX * sum(loads) / len(loads) + 60.0


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    mind = Affinity(kept=3)
    for n in (0, 1, 2, 0, 3):
        mind.remember(f"k{n}", NAMES[0], n + 1)
    assert len(mind) == 3
    assert [bool(mind.held(f"k{n}", NAMES[0])) for n in range(4)] == [True, False, True, True]


@pytest.mark.parametrize("known", [True, False])
def test_a_decision_among_64_takes_no_more_than_50_microseconds(known: bool) -> None:
    mind, names = Affinity(), [f"m@1.{n}" for n in range(64)]
    loads = [float(n) for n in range(64)]
    if known:
        for key in KEYS:
            mind.remember(key, names[len(key) % 64], 100)

    def taken_us() -> float:
        began = thread_time()
        for key in KEYS[:200]:
            mind.pick(key, names, loads, 100.0)
        return (thread_time() - began) * 1e6 / 200

    assert min(taken_us() for _ in range(10)) <= 50.0  # of the processor's time, the best of ten
