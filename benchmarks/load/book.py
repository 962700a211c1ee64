"""The folder of a run: what the workers wrote, put together, with the figures and the verdicts.

docs/load.md says what is in which file.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import psutil

from benchmarks.load import measures
from benchmarks.load.lag import invalid_because, summary
from benchmarks.load.notes import GAPS_KEPT
from benchmarks.load.resources import Sampler
from benchmarks.load.scenario import Scenario
from benchmarks.report import machine

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "benchmarks" / "out" / "runs"


class Told(msgspec.Struct):
    """What a worker leaves beside its columns."""

    errors: dict[str, int]
    kept: list[dict[str, Any]]
    counts: dict[str, int]
    marks: list[dict[str, Any]]
    cpu_share_max: float


class Parts:
    """What all workers left in a folder, together."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.turns = _joined([folder / f"turns-{n}.npz" for n in range(workers)])
        order = np.argsort(self.turns["intended_s"], kind="stable")
        self.turns = {name: column[order] for name, column in self.turns.items()}
        self.gaps = _thinned(_joined([folder / f"gaps-{n}.npz" for n in range(workers)]))
        lags = _joined([folder / f"lags-{n}.npz" for n in range(workers)])
        self.lag_ms = summary(lags["sends"])
        self.loop_delay_ms = summary(lags["delays"])
        told = [
            msgspec.json.decode((folder / f"told-{n}.json").read_bytes(), type=Told) for n in range(workers)
        ]
        self.errors = _summed([part.errors for part in told])
        self.counts = _summed([part.counts for part in told])
        self.errors_kept = [error for part in told for error in part.kept]
        self.marks = [mark for part in told for mark in part.marks]
        self.cpu_share_max = max((part.cpu_share_max for part in told), default=0.0)


def _joined(files: Sequence[Path]) -> dict[str, npt.NDArray[Any]]:
    parts = [dict(np.load(file)) for file in files]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _thinned(gaps: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    every = -(-len(gaps["at_s"]) // GAPS_KEPT) or 1
    return {name: column[::every] for name, column in gaps.items()}


def _summed(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


class Run(msgspec.Struct, kw_only=True):
    """What the conductor knows of a run when it is over."""

    name: str
    scenario: Scenario
    seed: int
    command: str
    started_at: str
    seconds: float
    phases: list[dict[str, Any]]
    measured: dict[str, float]
    marks: list[dict[str, Any]]


def write(folder: Path, run: Run, parts: Parts, sampler: Sampler) -> dict[str, Any]:
    """Everything into the folder; returns what `run.json` says."""
    resources, legend = sampler.columns(), sampler.legend()
    summed = _summary(run, parts, resources, legend)
    save(folder / "turns.npz", parts.turns)
    save(folder / "gaps.npz", parts.gaps)
    save(folder / "resources.npz", resources)
    _json(folder / "resources.json", legend)
    _json(folder / "run.json", summed)
    _lines(folder / "marks.jsonl", sorted([*run.marks, *parts.marks], key=_at))
    _lines(folder / "errors.jsonl", sorted(parts.errors_kept, key=_at))
    return summed


def save(file: Path, columns: measures.Columns) -> None:
    np.savez_compressed(file, **cast(dict[str, Any], dict(columns)))


def _at(entry: Mapping[str, Any]) -> float:
    return float(entry["at_s"])


def _summary(
    run: Run, parts: Parts, resources: measures.Columns, legend: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    bounds = run.scenario.bounds
    because = invalid_because(
        parts.lag_ms, parts.cpu_share_max, lag_p99_ms=bounds.lag_p99_ms, cpu_share=bounds.cpu_share
    )
    found = figures(run, parts, resources, legend)
    return {
        "name": run.name,
        "scenario": msgspec.to_builtins(run.scenario),
        "seed": run.seed,
        "command": run.command,
        "started_at": run.started_at,
        "machine": _machine(),
        "commit": _commit(),
        "seconds": round(run.seconds, 3),
        "phases": run.phases,
        "valid": not because,
        "invalid_because": because,
        "generator": {
            "processes": run.scenario.processes,
            "lag_ms": parts.lag_ms,
            "loop_delay_ms": parts.loop_delay_ms,
            "cpu_share_max": round(parts.cpu_share_max, 3),
            "client": run.scenario.client,
        },
        "targets": _targets(run, parts, found),
        "measures": {name: None if np.isnan(value) else round(value, 4) for name, value in found.items()},
        "errors": parts.errors,
        "counts": parts.counts,
        "agreement": measures.agreement(parts.turns),
    }


def figures(
    run: Run, parts: Parts, resources: measures.Columns, legend: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Of the whole run."""
    turns, seconds = measures.of_phase(parts.turns, run.phases, "")
    found = measures.of_turns(turns, seconds, run.scenario.slo.first_ms)
    found |= measures.of_resources(resources, legend) | run.measured
    found["errors"] = float(sum(parts.errors.values()))
    found["gaps"] = float(parts.errors.get("gap", 0) + parts.errors.get("tail", 0))
    found["doubled"] = float(parts.errors.get("doubled", 0))
    found["timing_disagreement"] = abs(measures.agreement(parts.turns)["ratio"] - 1.0)
    if found.get("knee_broken") and (knee := found.get("knee_goodput_per_s")):
        past = [phase.title for phase in run.scenario.phases if getattr(phase, "knees", 0)]
        goodput = [_phase_figures(run, parts, title)["goodput_per_s"] for title in past]
        found["goodput_over_knee"] = min(goodput, default=float("nan")) / knee
    return found


def _phase_figures(run: Run, parts: Parts, phase: str) -> dict[str, float]:
    turns, seconds = measures.of_phase(parts.turns, run.phases, phase)
    return measures.of_turns(turns, seconds, run.scenario.slo.first_ms)


def _targets(run: Run, parts: Parts, found: Mapping[str, float]) -> list[dict[str, Any]]:
    def measure(name: str, phase: str) -> float:
        where = _phase_figures(run, parts, phase) if phase else found
        return where.get(name, float("nan"))

    return measures.judged(run.scenario.targets, measure)


def _machine() -> dict[str, Any]:
    return {
        "cores": psutil.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
        "cpu": str(machine()["cpu"]),
    }


def _commit() -> str:
    """Of the tree that was measured, `+` behind it if it had changes; "" outside of a repository."""
    try:
        head = subprocess.run(
            ("git", "describe", "--always", "--dirty=+", "--exclude=*"),
            cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
    except OSError:
        return ""
    return head.stdout.strip()


def _json(file: Path, content: Any) -> None:
    file.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


def _lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
