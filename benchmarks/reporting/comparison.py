"""The difference of two runs, with how far chance alone could have brought it.

What happens close together in time is alike, a slow second is slow for all its turns; so not turns are drawn
again but whole blocks of time (the block bootstrap, Künsch 1989). A block keeps its latencies as counts in
buckets 1 % wide: percentiles of a drawn run are then sums of counts, and a thousand draws take a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.reporting.folder import COMPLETED, SHED, Floats, Run
from benchmarks.reporting.latencies import QUANTILES, Latency, latencies
from benchmarks.reporting.rates import good
from benchmarks.reporting.watched import watched

DRAWS = 1_000
BLOCKS_MIN = 10
BLOCKS = 60
BLOCK_S = 2.0
"""At least so long: a reply's deltas and a second of the collector's lie in one block."""
LOWEST_MS, WIDTH = 0.001, 1.01
THRESHOLD = 0.1
SHARE_THRESHOLD = 0.001
"""Of failed and shed turns: a share that was nothing can't grow by a tenth, so a thousandth more counts."""
SHARE = "share"
CONFIDENCE = (2.5, 97.5)
TAIL = 10
"""A percentile is compared if so many values lie beyond it, in both runs."""

Word = Literal["better", "worse", "same", "unsure"]
Statistic = Callable[[Floats], Floats]
"""From sums over the drawn blocks, a row a draw, to a figure a draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`change` is (after - before) / before, for a share of turns (unit `share`) after - before; 95 of 100 draws
    lie between `low` and `high`."""

    measure: str
    unit: str
    better: Literal["lower", "higher"]
    before: float
    after: float
    change: float
    low: float
    high: float
    word: Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Something that is measured in each block of a run; `of` makes a figure of the sums over blocks."""

    measure: str
    unit: str
    better: Literal["lower", "higher"]
    blocks: Floats
    of: Statistic
    count: float = float("inf")
    """How many values lie beyond it, for a percentile."""


def compare(before: Run, after: Run, *, threshold: float = THRESHOLD, seed: int = 1) -> list[Difference]:
    """What both runs measured. Worse or better is what moved by more than `threshold` (a share) and would
    have moved the same way in at least 39 of 40 draws; `unsure` is what is too short to say."""
    chance = np.random.default_rng(seed)
    earlier = {one.measure: one for one in figures(before)}
    pairs = [(earlier[one.measure], one) for one in figures(after) if one.measure in earlier]
    return [_difference(one, other, threshold, chance) for one, other in pairs]


def _difference(before: Figure, after: Figure, threshold: float, chance: np.random.Generator) -> Difference:
    values = [float(one.of(one.blocks.sum(axis=0, keepdims=True))[0]) for one in (before, after)]
    drawn = [_draw(one, chance) for one in (before, after)]
    of = np.subtract if after.unit == SHARE else _relative
    change = float(of(np.array(values[1:]), np.array(values[:1]))[0])
    low, high = (float(value) for value in np.percentile(of(drawn[1], drawn[0]), CONFIDENCE))
    least = SHARE_THRESHOLD if after.unit == SHARE else threshold
    enough = (
        min(len(before.blocks), len(after.blocks)) >= BLOCKS_MIN and min(before.count, after.count) >= TAIL
    )
    return Difference(
        measure=after.measure,
        unit=after.unit,
        better=after.better,
        before=values[0],
        after=values[1],
        change=change,
        low=low,
        high=high,
        word=_word(change, low, high, least, after.better) if enough else "unsure",
    )


def _relative(after: Floats, before: Floats) -> Floats:
    return (after - before) / np.maximum(before, 1e-9)


def _word(change: float, low: float, high: float, threshold: float, better: str) -> Word:
    if abs(change) <= threshold or low <= 0.0 <= high:
        return "same"
    return "worse" if (change > 0) == (better == "lower") else "better"


def _draw(figure: Figure, chance: np.random.Generator) -> Floats:
    count = len(figure.blocks)
    weights = chance.multinomial(count, np.full(count, 1.0 / count), size=DRAWS).astype(np.float64)
    return figure.of(weights @ figure.blocks)


# -- what is compared


def figures(run: Run) -> list[Figure]:
    edges = blocks(run.seconds)
    found = [figure for latency in latencies(run) for figure in _percentiles(latency, edges)]
    return [*found, *_turns(run, edges), *_resources(run, edges)]


def blocks(seconds: float) -> Floats:
    """Bounds of blocks of time, at most `BLOCKS` of at least `BLOCK_S`."""
    count = int(np.clip(seconds / BLOCK_S, 1, BLOCKS))
    return np.linspace(0.0, seconds, count + 1)


def _percentiles(latency: Latency, edges: Floats) -> list[Figure]:
    if not len(latency.ms):
        return []
    bucket = np.floor(np.log(np.maximum(latency.ms, LOWEST_MS) / LOWEST_MS) / np.log(WIDTH))
    buckets = np.arange(bucket.min(), bucket.max() + 2)
    counts, _, _ = np.histogram2d(latency.at_s, bucket, bins=(edges, buckets))
    middles = LOWEST_MS * WIDTH ** (buckets[:-1] + 0.5)
    return [
        Figure(
            measure=f"{latency.title.lower()} p{quantile:g}",
            unit="ms",
            better="lower",
            blocks=counts,
            of=_quantile(quantile / 100, middles),
            count=len(latency.ms) * (1 - quantile / 100),
        )
        for quantile in QUANTILES
    ]


def _quantile(share: float, middles: Floats) -> Statistic:
    """The middle of the bucket where the share is reached."""

    def of(counts: Floats) -> Floats:
        reached = np.cumsum(counts, axis=1) >= share * counts.sum(axis=1, keepdims=True)
        return middles[np.argmax(reached, axis=1)]

    return of


def _turns(run: Run, edges: Floats) -> list[Figure]:
    """Rates, and shares of the turns that were to begin."""
    turns = run.turns
    at, outcome = turns["intended_s"], turns["outcome"]
    sums = [
        np.histogram(at[chosen], edges)[0]
        for chosen in (outcome == COMPLETED, good(run), outcome == SHED, outcome > SHED, outcome >= COMPLETED)
    ]
    columns = np.column_stack([*sums, np.diff(edges)]).astype(np.float64)
    return [
        Figure(measure="completed turns", unit="1/s", better="higher", blocks=columns, of=_ratio(0, 5)),
        Figure(measure="goodput", unit="1/s", better="higher", blocks=columns, of=_ratio(1, 5)),
        Figure(measure="shed turns", unit=SHARE, better="lower", blocks=columns, of=_ratio(2, 4)),
        Figure(measure="failed turns", unit=SHARE, better="lower", blocks=columns, of=_ratio(3, 4)),
    ]


def _ratio(over: int, under: int) -> Statistic:
    def of(sums: Floats) -> Floats:
        return sums[:, over] / np.maximum(sums[:, under], 1e-9)

    return of


def _resources(run: Run, edges: Floats) -> list[Figure]:
    """Means over the run."""
    seen = watched(run, edges)
    cpu = np.nansum(
        [usage.cpu for usage in seen.usages if usage.server] or [np.zeros(len(edges) - 1)], axis=0
    )
    columns = np.column_stack([seen.total_mib(), cpu, np.ones(len(edges) - 1)])
    columns = columns[columns[:, 0] > 0]
    if not len(columns):
        return []
    return [
        Figure(measure="memory of the fleet", unit="MiB", better="lower", blocks=columns, of=_ratio(0, 2)),
        Figure(
            measure="processors of the fleet", unit="cores", better="lower", blocks=columns, of=_ratio(1, 2)
        ),
    ]
