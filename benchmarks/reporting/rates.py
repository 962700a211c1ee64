"""How much happened a second: turns by outcome, goodput, errors by type."""

from __future__ import annotations

from collections import Counter

import numpy as np

from benchmarks.reporting.folder import COMPLETED, OUTCOMES, UNFINISHED, Floats, Run

TYPES_SHOWN = 8


def good(run: Run) -> np.ndarray:
    """Which turns kept the SLO: completed, the first token in time; a client that waits for the whole reply
    sees no first token."""
    turns = run.turns
    first_ms = (turns["first_s"] - turns["intended_s"]) * 1000
    return (turns["outcome"] == COMPLETED) & ~(first_ms > run.slo_first_ms)


def per_second(at_s: np.ndarray, edges: Floats) -> Floats:
    return np.histogram(at_s[np.isfinite(at_s)], edges)[0] / np.diff(edges)


def throughput(run: Run, edges: Floats) -> dict[str, Floats]:
    """Turns a second, by the time when they were to begin; completed ones by their end."""
    turns = run.turns
    done = turns["end_s"][turns["outcome"] == COMPLETED]
    return {
        "offered": per_second(turns["intended_s"], edges),
        "completed": per_second(done, edges),
        "goodput": per_second(turns["intended_s"][good(run)], edges),
    }


def in_flight(run: Run, at_s: Floats) -> Floats:
    """Turns that were to begin before each moment and ended after it. One that never ended but was refused
    or failed is counted as over at once."""
    turns = run.turns
    ends = np.where(np.isfinite(turns["end_s"]), turns["end_s"], turns["intended_s"])
    ends = np.where(turns["outcome"] == UNFINISHED, np.inf, ends)
    begun = np.searchsorted(np.sort(turns["intended_s"]), at_s)
    return (begun - np.searchsorted(np.sort(ends), at_s)).astype(np.float64)


def outcomes(run: Run, edges: Floats) -> dict[str, Floats]:
    """Turns a second that did not complete, by what became of them."""
    turns = run.turns
    return {
        name: per_second(turns["intended_s"][turns["outcome"] == number], edges)
        for number, name in enumerate(OUTCOMES)
        if number != COMPLETED and np.any(turns["outcome"] == number)
    }


def errors(run: Run, edges: Floats) -> dict[str, Floats]:
    """Errors a second by type, the most frequent ones; of a type of which not all were kept, the shape is
    that of those that were, the height that of the count."""
    kept = Counter(failure.type for failure in run.failures)
    counts = {type: max(run.about.errors.get(type, 0), kept[type]) for type in kept}
    found: dict[str, Floats] = {}
    for type in sorted(counts, key=lambda type: -counts[type])[:TYPES_SHOWN]:
        at = np.array([failure.at_s for failure in run.failures if failure.type == type])
        found[type] = per_second(at, edges) * counts[type] / kept[type]
    return found
