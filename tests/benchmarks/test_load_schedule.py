"""The traffic follows from the scenario and the seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from benchmarks.load.scenario import Every, Ramp, Rate, Scenario, Think, Traffic, Ways
from benchmarks.load.schedule import schedule, ways

TRAFFICS = [Every(seconds=30), Think(median_s=5.2, reply_s=1.0), Rate(turns_per_s=20)]


def scenario(traffic: Traffic, conversations: int = 300) -> Scenario:
    return Scenario(about="", conversations=conversations, traffic=traffic, phases=(Ramp(),))


@pytest.mark.parametrize("traffic", TRAFFICS)
def test_the_same_seed_is_the_same_traffic(traffic: Traffic) -> None:
    first, again = (schedule(scenario(traffic), 7, "1-steady", 60, 1.0) for _ in range(2))
    assert first == again
    assert first != schedule(scenario(traffic), 8, "1-steady", 60, 1.0)


@pytest.mark.parametrize("traffic", TRAFFICS)
def test_workers_share_the_turns_without_rest(traffic: Traffic) -> None:
    whole = schedule(scenario(traffic), 7, "1-steady", 60, 1.0)
    parts = [whole.of_worker(n, 3) for n in range(3)]
    said = sorted(turn for p in parts for turn in zip(p.at_s, p.conversation, p.text, strict=True))
    assert said == sorted(zip(whole.at_s, whole.conversation, whole.text, strict=True))
    assert all(number % 3 == n for n, part in enumerate(parts) for number in part.conversation)


@pytest.mark.parametrize("traffic", TRAFFICS)
@pytest.mark.parametrize("load", [0.5, 1.0, 3.0])
def test_the_rate_is_that_of_the_load(traffic: Traffic, load: float) -> None:
    asked = scenario(traffic, 2000)
    turns = schedule(asked, 7, "1-steady", 120, load)
    assert turns.at_s == sorted(turns.at_s)
    assert 0 <= turns.at_s[0] <= turns.at_s[-1] < 120
    assert len(turns.at_s) / 120 == pytest.approx(asked.turns_per_s * load, rel=0.06)


def test_each_conversation_has_its_turn_in_each_interval() -> None:
    turns = schedule(scenario(Every(seconds=10)), 7, "1-steady", 30, 1.0)
    assert set(Counter(turns.conversation).values()) == {3}


def test_phases_of_one_load_continue_each_other() -> None:
    """A conversation's place in its interval is that of the whole run."""
    first, second = (schedule(scenario(Every(seconds=10)), 7, part, 10, 1.0) for part in ("1-a", "2-b"))
    assert first.conversation == second.conversation
    assert first.at_s == second.at_s


def test_the_pauses_have_the_median_that_was_asked_for() -> None:
    think = Think(median_s=5.2, reply_s=1.0, sigma=1.0)
    turns = schedule(scenario(think, 1000), 7, "1-steady", 600, 1.0)
    last: dict[int, float] = {}
    pauses: list[float] = []
    for at, number in zip(turns.at_s, turns.conversation, strict=True):
        if number in last:
            pauses.append(at - last[number] - think.reply_s)
        last[number] = at
    assert np.median(pauses) == pytest.approx(5.2, rel=0.05)
    assert max(pauses) <= think.most_s + 1e-6


def test_ways_have_their_exact_shares() -> None:
    asked = Scenario(
        about="", conversations=200, ways=Ways(websocket=7, sse=2, http=0.5, grpc=0.5), phases=(Ramp(),)
    )
    assert Counter(ways(asked, 7)) == {0: 140, 1: 40, 2: 10, 3: 10}
    assert ways(asked, 7) == ways(asked, 7) != ways(asked, 8)
