"""Where a turn loses its time, by how slow it was: the fleet's own timing beside what the client saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.reporting.folder import COMPLETED, Floats, Run

BANDS = ((45.0, 55.0), (85.0, 92.5), (94.0, 96.0), (98.5, 99.5), (99.85, 99.95), (99.95, 100.0))
BAND_NAMES = ("p50", "p90", "p95", "p99", "p99.9", "slowest")
FIRST_PARTS = ("generator", "queued", "retrieval", "prompt", "engine", "way")
END_PARTS = ("generator", "queued", "retrieval", "prompt", "engine", "generation", "recording", "way")
PARTS = {
    "generator": "generator: sent later than intended",
    "queued": "queued: mailbox and the record of the message",
    "retrieval": "retrieval",
    "prompt": "prompt: record of the start, router, link",
    "engine": "engine: first token",
    "generation": "engine: the other tokens",
    "recording": "record of the reply",
    "way": "way: gateway, links, proxy, client",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The mean milliseconds of each part over the turns around a percentile."""

    name: str
    turns: int
    parts: dict[str, float]

    @property
    def total_ms(self) -> float:
        return sum(self.parts.values())


def first_bands(run: Run) -> tuple[Band, ...]:
    """Up to the first token."""
    return _bands(run, "first_s", FIRST_PARTS)


def end_bands(run: Run) -> tuple[Band, ...]:
    """Up to the end of the reply."""
    return _bands(run, "end_s", END_PARTS)


def _bands(run: Run, column: str, names: tuple[str, ...]) -> tuple[Band, ...]:
    turns = run.turns
    ms = (turns[column] - turns["intended_s"]) * 1000
    timed = np.isfinite(ms) & np.isfinite(turns["total"]) & (turns["outcome"] == COMPLETED)
    order = np.flatnonzero(timed)[np.argsort(ms[timed])]
    parts = _parts(run, ms, names)
    found: list[Band] = []
    for name, (low, high) in zip(BAND_NAMES, BANDS, strict=True):
        chosen = order[int(len(order) * low / 100) : int(np.ceil(len(order) * high / 100))]
        if len(chosen):
            means = {part: float(np.mean(values[chosen])) for part, values in parts.items()}
            found.append(Band(name=name, turns=len(chosen), parts=means))
    return tuple(found)


def _parts(run: Run, ms: Floats, names: tuple[str, ...]) -> dict[str, Floats]:
    """What the fleet doesn't account for is the way; rounding may leave it a little below nothing."""
    turns = run.turns
    known = {
        "generator": (turns["sent_s"] - turns["intended_s"]) * 1000,
        "queued": turns["queued"],
        "retrieval": turns["retrieval"],
        "prompt": turns["prompt"],
        "engine": turns["first_token"],
        "generation": turns["generation"],
    }
    inside = sum(known[name] for name in ("queued", "retrieval", "prompt", "engine", "generation"))
    known["recording"] = turns["total"] - inside
    parts = {name: np.maximum(0.0, known[name]) for name in names if name != "way"}
    parts["way"] = np.maximum(0.0, ms - sum(parts.values()))
    return parts
