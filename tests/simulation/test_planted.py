"""A simulator that finds nothing proves nothing: each of these bugs must be caught."""

from __future__ import annotations

import pytest

from simulation.many import first_catch
from simulation.planted import BUGS, SEEDS_MAX
from simulation.run import run


@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug: str) -> None:
    assert first_catch(bug) is not None, f"{bug} got through {SEEDS_MAX} schedules"


def test_what_was_planted_is_gone_afterwards() -> None:
    before = run(2, tracing=True)
    for bug in BUGS:
        run(2, planted=bug)
    assert run(2, tracing=True) == before
