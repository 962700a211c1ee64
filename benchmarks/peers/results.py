"""Figures of what was measured, in two tables: what keeps no record, and what is on disk before it is answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.peers.measuring import Measured, Sizes
from benchmarks.peers.serve_chat import SERVES
from benchmarks.report import Result

FIRST_TOKEN_MAX_MS = 5.0
FIRST_TOKEN_TIMES_MIN = 5.0
OVERHEAD_MAX_MS = 50.0
TOKENS_TIMES_MIN = 20.0

Value = tuple[str, float, str, bool]
"""A measure, its value, its unit, and whether less of it is better."""


def values(measured: Measured, sizes: Sizes) -> Iterator[Value]:
    for q in (50, 95):
        middle = float(np.median([np.percentile(firsts, q) for firsts in measured.alone]))
        yield f"first_token_alone_p{q}", middle, "ms", True
    overhead = float(np.percentile(measured.overhead, 95))
    yield f"overhead_of_{sizes.together}_p95", overhead, "ms", True
    yield f"tokens_at_{sizes.streams}", measured.flow.tokens_per_s, "1/s", False
    yield f"client_cpu_at_{sizes.streams}", measured.flow.client_cores, "cores", True
    yield f"server_cpu_at_{sizes.streams}", measured.flow.server_cores, "cores", True
    yield f"turned_away_at_{sizes.streams}", measured.flow.turned_away_per_s, "1/s", True
    if measured.idle_bytes is not None:
        yield "idle_conversation", measured.idle_bytes / 1024, "KB", True


def forgetful(found: Sequence[Measured], sizes: Sizes) -> list[Result]:
    """Who keeps no record, each beside Ray Serve behind its Python proxy."""
    kept = [measured for measured in found if not measured.durable]
    base = next((measured for measured in kept if measured.name == SERVES[0]), None)
    beside = {name: value for name, value, _, _ in values(base, sizes)} if base else {}
    named = [result for measured in kept for result in _rows(measured, sizes, beside)]
    return sorted(named, key=lambda result: result.measure.partition(":")[0])


def _rows(measured: Measured, sizes: Sizes, beside: Mapping[str, float]) -> Iterator[Result]:
    for name, value, unit, less in values(measured, sizes):
        other = None if measured.name == SERVES[0] else beside.get(name)
        yield Result(
            measure=f"{name}: {measured.name}",
            value=round(value, 3),
            unit=unit,
            better="lower" if less else "higher",
            peer="serve" if other else None,
            peer_value=round(other, 3) if other else None,
            spread=_spread(measured) if name == "first_token_alone_p50" else None,
        )


def durable(found: Sequence[Measured], sizes: Sizes) -> list[Result]:
    """Ours, with a record on disk, and how it stands to each way of Ray Serve, which keeps none."""
    kept = [measured for measured in found if measured.durable]
    serves = [measured for measured in found if measured.name in SERVES]
    rows = [result for measured in kept for result in (*_judged(measured, sizes), *_times(measured, serves))]
    return sorted(rows, key=lambda result: result.measure.partition(":")[0])


def _judged(measured: Measured, sizes: Sizes) -> Iterator[Result]:
    targets = {
        "first_token_alone_p50": FIRST_TOKEN_MAX_MS,
        f"overhead_of_{sizes.together}_p95": OVERHEAD_MAX_MS,
    }
    for name, value, unit, less in values(measured, sizes):
        yield Result(
            measure=f"{name}: {measured.name}",
            value=round(value, 3),
            unit=unit,
            better="lower" if less else "higher",
            target=targets.get(name),
            spread=_spread(measured) if name == "first_token_alone_p50" else None,
        )


def _times(measured: Measured, serves: Sequence[Measured]) -> Iterator[Result]:
    """How many times better than each way of Ray Serve."""
    for serve in serves:
        pair = f"{measured.name} over {serve.name}"
        first, flow = first_ms(serve) / first_ms(measured), _tokens(measured) / max(_tokens(serve), 1.0)
        yield _ratio(f"first_token_times: {pair}", first, FIRST_TOKEN_TIMES_MIN)
        yield _ratio(f"tokens_times: {pair}", flow, TOKENS_TIMES_MIN)


def _ratio(measure: str, value: float, target: float) -> Result:
    return Result(measure=measure, value=round(value, 2), unit="times", better="higher", target=target)


def first_ms(measured: Measured) -> float:
    """The median of a turn alone."""
    return float(np.median([np.percentile(firsts, 50) for firsts in measured.alone]))


def _tokens(measured: Measured) -> float:
    return measured.flow.tokens_per_s


def _spread(measured: Measured) -> float:
    """Of the medians of the rounds: (highest - lowest) / median."""
    middles = [float(np.percentile(firsts, 50)) for firsts in measured.alone]
    return round((max(middles) - min(middles)) / float(np.median(middles)), 3)
