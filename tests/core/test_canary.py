"""Who is in a canary: the same everywhere, more as it grows, others the next time; and quick to say."""

from __future__ import annotations

import time
from math import sqrt

import pytest

from flotilla.core.generation import Origin
from flotilla.core.policy.canary import in_canary, may_use, version_for
from flotilla.core.versions import FLEET, Canary, Route
from tests.swaps import version

PEOPLE = [Origin(tenant=f"t-{n % 7}", conversation=f"s_{n}", agent="bank") for n in range(20_000)]


def those_in(canary: Canary, salt: str = "s-1") -> set[str]:
    return {origin.conversation for origin in PEOPLE if in_canary(canary, origin, salt)}


@pytest.mark.parametrize("percent", [0.5, 5.0, 25.0, 50.0])
def test_as_many_are_in_as_it_says(percent: float) -> None:
    share = percent / 100
    chance = sqrt(share * (1 - share) / len(PEOPLE))
    assert abs(len(those_in(Canary(percent=percent))) / len(PEOPLE) - share) < 4 * chance


def test_whoever_is_in_stays_in_as_it_grows() -> None:
    before: set[str] = set()
    for percent in (0.0, 1.0, 5.0, 25.0, 50.0, 100.0):
        now = those_in(Canary(percent=percent))
        assert before <= now
        before = now
    assert not those_in(Canary()) and len(before) == len(PEOPLE)


def test_another_swap_begins_with_others() -> None:
    first, second = those_in(Canary(percent=10), "s-1"), those_in(Canary(percent=10), "s-2")
    assert 0.05 < len(first & second) / len(first) < 0.2, "as many as chance would have it"


def test_the_same_name_at_another_tenant_is_another_conversation() -> None:
    canary = Canary(percent=50)
    pairs = [
        (Origin(tenant="a", conversation=f"c-{n}"), Origin(tenant="b", conversation=f"c-{n}"))
        for n in range(400)
    ]
    differ = sum(in_canary(canary, a, "s") != in_canary(canary, b, "s") for a, b in pairs)
    assert 120 < differ < 280


def test_those_who_are_named_are_in() -> None:
    canary = Canary(tenants=("acme",), agents=("bank/router",), conversations=("shop/s_1",))
    ins = [
        Origin(tenant="acme", conversation="any"),
        Origin(tenant="acme"),
        Origin(tenant="bank", agent="router", conversation="x"),
        Origin(tenant="shop", conversation="s_1"),
    ]
    outs = [
        Origin(tenant="bank", agent="clerk", conversation="x"),
        Origin(tenant="shop", agent="router", conversation="s_2"),
        Origin(tenant="other", conversation="s_1"),
    ]
    assert all(in_canary(canary, origin, "s") for origin in ins)
    assert not any(in_canary(canary, origin, "s") for origin in outs)


def test_without_a_conversation_nobody_is_drawn() -> None:
    lone = Origin(tenant="t")
    assert not in_canary(Canary(percent=99.9), lone, "s") and in_canary(Canary(percent=100), lone, "s")


def test_the_version_for_a_conversation() -> None:
    route = Route(stable="m@1", candidate="m@2", canary=Canary(percent=50), salt="s-1")
    versions = {"m@1": version("1"), "m@2": version("2")}
    answers = [version_for(route, versions, origin) for origin in PEOPLE[:2000]]
    assert answers == [version_for(route, versions, origin) for origin in PEOPLE[:2000]]
    assert 800 < answers.count("m@2") < 1200 and set(answers) == {"m@1", "m@2"}


def test_versions_are_hidden_from_other_tenants() -> None:
    route = Route(stable="m@1", candidate="m@2", canary=Canary(percent=100))
    versions = {"m@1": version("1"), "m@2": version("2", tenants=("acme",))}
    assert version_for(route, versions, Origin(tenant="acme", conversation="c")) == "m@2"
    assert version_for(route, versions, Origin(tenant="other", conversation="c")) == "m@1"
    hidden = {"m@1": version("1", tenants=("acme",))}
    assert version_for(Route(stable="m@1"), hidden, Origin(tenant="other")) == ""
    assert may_use(hidden["m@1"], FLEET) and not may_use(None, FLEET)


def test_it_is_decided_in_microseconds() -> None:
    """The best of several runs: what the function itself takes, whoever else uses the machine."""
    canary = Canary(percent=25)
    times: list[float] = []
    for _ in range(20):
        begun = time.process_time()
        for origin in PEOPLE[:1000]:
            in_canary(canary, origin, "s-1")
        times.append((time.process_time() - begun) / 1000)
    assert min(times) <= 3e-6
