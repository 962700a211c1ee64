"""Many schedules, on all cores."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import get_context

from simulation.planted import BUGS, SEEDS_MAX
from simulation.run import Outcome, run

SEEDS_PER_TASK = 20


def outcomes(
    seeds: Iterable[int], *, planted: str = "", models: bool | None = None, processes: int | None = None
) -> Iterator[Outcome]:
    """As they come, in no order."""
    work: Callable[[int], Outcome] = partial(run, planted=planted, models=models)
    with get_context("fork").Pool(processes or os.cpu_count() or 1, gc.freeze) as pool:
        yield from pool.imap_unordered(work, seeds, SEEDS_PER_TASK)


def first_catch(bug: str) -> Outcome | None:
    """The first schedule in which the checker sees what was planted, and sees nothing of the kind without."""
    rules, models, first = BUGS[bug].rules, BUGS[bug].models, BUGS[bug].first
    for seed in range(first, first + SEEDS_MAX):
        outcome = run(seed, planted=bug)
        if rules & set(outcome.rules) and not rules & set(run(seed, models=models).rules):
            return outcome
    return None
