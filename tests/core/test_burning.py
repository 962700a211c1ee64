"""When a budget burns, and when there is too little to say so."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from flotilla.core.policy.burning import burnt
from flotilla.core.swap_orders import Budgets, Figures
from flotilla.core.tallies import Tally

BUDGETS = Budgets()


def figures(name: str = "m@2", **fields: Any) -> Figures:
    known: dict[str, Any] = {"replies": 100, "first_token_p95": 100.0, "judged": 100, "quality": 0.8}
    return Figures(version=name, quality_deviation=0.2, **{**known, **fields})


STABLE = figures("m@1")


def test_nothing_burns_while_both_are_alike() -> None:
    assert burnt(figures(), STABLE, BUDGETS) == ()
    assert burnt(Figures(version="m@2"), Figures(version="m@1"), BUDGETS) == ()


@pytest.mark.parametrize(
    ("replies", "errors", "burns"),
    [(100, 2, False), (100, 3, True), (1000, 20, False), (0, 2, False), (0, 3, True), (1, 3, True)],
)
def test_errors_burn_by_their_share_and_never_alone(replies: int, errors: int, burns: bool) -> None:
    found = burnt(figures(replies=replies, errors=errors, judged=0), STABLE, BUDGETS)
    assert bool(found) == burns
    assert not burns or found[0].startswith(f"errors: {errors} of {replies + errors}")


@pytest.mark.parametrize(
    ("p95", "replies", "stable", "burns"),
    [
        (169.0, 100, 100, False),
        (171.0, 100, 100, True),
        (900.0, 19, 100, False),
        (900.0, 20, 100, True),
        (900.0, 100, 19, False),
    ],
)
def test_slow_first_tokens_burn_once_enough_replies_say_so(
    p95: float, replies: int, stable: int, burns: bool
) -> None:
    candidate = figures(first_token_p95=p95, replies=replies)
    found = burnt(candidate, figures("m@1", replies=stable), BUDGETS)
    assert bool(found) == burns
    assert not burns or ("m@1" in found[0] and "170 ms" in found[0])


@pytest.mark.parametrize(
    ("quality", "deviation", "judged", "burns"),
    [
        (0.69, 0.2, 100, True),
        (0.71, 0.2, 100, False),  # within the budget
        (0.65, 0.6, 20, False),  # more than may be, and within two standard errors of chance
        (0.3, 0.6, 20, True),
        (0.1, 0.0, 19, False),
    ],
)
def test_quality_burns_beyond_the_budget_and_beyond_chance(
    quality: float, deviation: float, judged: int, burns: bool
) -> None:
    candidate = Figures(version="m@2", judged=judged, quality=quality, quality_deviation=deviation)
    found = burnt(candidate, STABLE, BUDGETS)
    assert bool(found) == burns and all(reason.startswith("quality") for reason in found)


def test_every_budget_that_burns_is_named() -> None:
    found = burnt(figures(errors=50, first_token_p95=1e4, quality=0.1), STABLE, BUDGETS)
    assert [reason.split(":")[0] for reason in found] == ["errors", "first token", "quality"]


def counted(random: Random, replies: int, ms: float, quality: float) -> Figures:
    tally = Tally()
    for _ in range(replies):
        tally.reply(random.lognormvariate(0.0, 0.3) * ms, 20, 1.0)
        tally.score(min(1.0, max(0.0, random.gauss(quality, 0.2))))
    return tally.figures("m@x")


def test_two_that_are_alike_are_seldom_told_apart_and_a_worse_one_always_is() -> None:
    """From what is counted of 200 swaps of each sort, with 60 replies of the candidate."""
    random = Random(7)
    false = true = 0
    for _ in range(200):
        stable = counted(random, 600, 100.0, 0.8)
        false += bool(burnt(counted(random, 60, 100.0, 0.8), stable, BUDGETS))
        true += bool(burnt(counted(random, 60, 250.0, 0.5), stable, BUDGETS))
    assert false <= 4 and true == 200
