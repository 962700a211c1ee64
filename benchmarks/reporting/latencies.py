"""The latencies of a run, and their percentiles: over time, as distributions, by phase."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from benchmarks.reporting.folder import COMPLETED, Floats, Run

QUANTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
BINS = 120
"""Points of a curve over time, at most; none is closer to the next than a second."""
CURVE_POINTS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One measure: `ms` of what was to begin at `at_s`. Ordered by time, without what never happened."""

    name: str
    title: str
    about: str
    at_s: Floats
    ms: Floats


def latencies(run: Run) -> tuple[Latency, ...]:
    turns, gaps = run.turns, run.gaps
    return (
        _since_intended(run, "first", "First token", "first_s"),
        _latency(
            "gap",
            "Inter-token",
            "From one delta of a reply to the next; a uniform sample.",
            gaps["at_s"],
            gaps["gap_ms"],
        ),
        _since_intended(run, "end", "End to end", "end_s", turns["outcome"] == COMPLETED),
    )


def _since_intended(run: Run, name: str, title: str, column: str, of: np.ndarray | None = None) -> Latency:
    at, ms = run.turns["intended_s"], (run.turns[column] - run.turns["intended_s"]) * 1000
    if of is not None:
        at, ms = at[of], ms[of]
    what = {"first_s": "its first delta", "end_s": "the end of its reply"}[column]
    about = f"From the moment when the message was to be sent to {what} at the client."
    return _latency(name, title, about, at, ms)


def _latency(name: str, title: str, about: str, at_s: np.ndarray, ms: np.ndarray) -> Latency:
    there = np.isfinite(ms) & np.isfinite(at_s)
    at_s, ms = at_s[there], ms[there]
    order = np.argsort(at_s, kind="stable")
    return Latency(
        name=name,
        title=title,
        about=about,
        at_s=at_s[order].astype(np.float64),
        ms=ms[order].astype(np.float64),
    )


def within(latency: Latency, from_s: float, to_s: float) -> Floats:
    """Milliseconds of what was to begin in a span of time."""
    first, last = np.searchsorted(latency.at_s, (from_s, to_s))
    return latency.ms[first:last]


def percentiles(ms: Floats, quantiles: tuple[float, ...] = QUANTILES) -> Floats:
    """NaN for each if there is nothing."""
    found = np.percentile(ms, quantiles) if len(ms) else np.full(len(quantiles), np.nan)
    return found.astype(np.float64)


def edges(seconds: float, bins: int = BINS) -> Floats:
    """Bounds of the bins of a plot over time: 1, 2, 5, 10, … seconds apart."""
    widths = [step * 10.0**power for power in range(6) for step in (1, 2, 5)]
    width = next((width for width in widths if seconds / width <= bins), widths[-1])
    return (np.arange(int(np.ceil(seconds / width)) + 1) * width).astype(np.float64)


def over_time(latency: Latency, edges: Floats) -> Floats:
    """A row a quantile, a column a bin."""
    bounds = np.searchsorted(latency.at_s, edges)
    return np.array([percentiles(latency.ms[first:last]) for first, last in pairwise(bounds)]).T


def distribution(ms: Floats) -> tuple[Floats, Floats]:
    """Milliseconds at `CURVE_POINTS` percentiles, closer together where the tail is."""
    if not len(ms):
        return np.empty(0), np.empty(0)
    nines = np.linspace(0.0, np.log10(max(10, len(ms))), CURVE_POINTS)
    at = (1.0 - 10.0**-nines) * 100.0
    return np.percentile(ms, at), at
