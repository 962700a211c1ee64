"""Run folders out of a seed, as the load fleet would have written them: for tests, and to look at the page.

`python -m tests.reporting.synthetic_runs FOLDER` writes one and a baseline.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

PROCESSES = (
    *("gateway", "host-0", "host-1", "model", "librarian", "postgres", "valkey", "haproxy", "raylet", "gcs"),
    *("controller", "serve-controller", "proxy", "dashboard", "generator-0", "generator-1"),
)
PSS_MB = (480, 420, 410, 120, 460, 160, 90, 60, 40, 50, 100, 95, 95, 76, 150, 150)


def write(
    folder: Path,
    *,
    seed: int = 7,
    seconds: float = 120.0,
    per_s: float = 300.0,
    slower: float = 1.0,
    shed: float = 0.0,
    invalid: tuple[str, ...] = (),
    storm_at: float | None = 60.0,
) -> Path:
    """`slower` multiplies every latency of the fleet, `shed` is the share of turns that are refused."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    turns = _turns(chance, seconds=seconds, per_s=per_s, slower=slower, shed=shed, storm_at=storm_at)
    np.savez(folder / "turns.npz", **turns)
    gaps = 20 * slower * chance.lognormal(0.0, 0.25, 20_000)
    np.savez(
        folder / "gaps.npz",
        at_s=np.sort(chance.uniform(5, seconds, len(gaps))),
        gap_ms=gaps.astype(np.float32),
    )
    np.savez(folder / "resources.npz", **_resources(chance, seconds))
    named = [{"name": name, "server": not name.startswith("generator")} for name in PROCESSES]
    (folder / "resources.json").write_text(json.dumps(named))
    _happened(folder, turns, storm_at)
    (folder / "run.json").write_text(
        json.dumps(_about(folder.name, turns, seconds=seconds, seed=seed, invalid=invalid))
    )
    return folder


def _turns(
    chance: np.random.Generator,
    *,
    seconds: float,
    per_s: float,
    slower: float,
    shed: float,
    storm_at: float | None,
) -> dict[str, Any]:
    count = int(per_s * (seconds - 10))
    intended = np.sort(chance.uniform(5, seconds - 5, count))
    storm = np.zeros(count)
    if storm_at is not None:
        storm = np.exp(-np.maximum(0, intended - storm_at) / 3) * (intended >= storm_at)
    queued = slower * chance.lognormal(0.6, 0.5, count) * (1 + 30 * storm)
    retrieval = slower * chance.lognormal(1.2, 0.35, count)
    prompt = slower * chance.lognormal(-0.3, 0.5, count)
    first_token = chance.lognormal(-1.5, 0.3, count)
    generation = 1000 + chance.normal(0, 10, count)
    record = slower * chance.lognormal(0.3, 0.4, count)
    way = slower * chance.lognormal(0.8, 0.6, count) * (1 + 8 * storm)
    sent = intended + chance.lognormal(-8.0, 0.8, count)
    first = sent + (queued + retrieval + prompt + first_token + way) / 1000
    total = queued + retrieval + prompt + first_token + generation + record
    end = sent + (total + way) / 1000
    outcome = np.where(chance.random(count) < shed, 1, 0).astype(np.uint8)
    outcome[(storm > 0.6) & (chance.random(count) < 0.05)] = 2
    lost = outcome > 0
    for column in (first, end, queued, retrieval, prompt, first_token, generation, total):
        column[lost] = np.nan
    return {
        "intended_s": intended,
        "sent_s": sent,
        "accepted_s": np.where(lost, np.nan, sent + (queued + way) / 1000),
        "first_s": first,
        "end_s": end,
        "characters": np.where(lost, 0, 300).astype(np.int32),
        "deltas": np.where(lost, 0, 50).astype(np.int32),
        "gap_max_ms": np.where(lost, np.nan, 30 * slower).astype(np.float32),
        "outcome": outcome,
        "way": chance.choice(np.array([0, 0, 0, 1, 2, 3], dtype=np.uint8), count),
        "phase": (intended > seconds / 2).astype(np.uint8),
        "queued": queued,
        "retrieval": retrieval,
        "prompt": prompt,
        "first_token": first_token,
        "generation": generation,
        "total": total,
        "overhead": total - retrieval - first_token - generation,
    }


def _resources(chance: np.random.Generator, seconds: float) -> dict[str, Any]:
    at = np.arange(0.0, seconds, 1.0)
    grown = np.minimum(1.0, at / (seconds / 4))
    shape = (len(at), len(PROCESSES))
    pss = np.array(PSS_MB) * 1e6 * (0.7 + 0.3 * grown[:, None]) * (1 + 0.01 * chance.normal(size=shape))
    cpu = np.abs(chance.normal(0.09, 0.02, shape)) * np.linspace(2.5, 0.3, len(PROCESSES))
    return {
        "at_s": np.repeat(at, len(PROCESSES)),
        "process": np.tile(np.arange(len(PROCESSES)), len(at)),
        "cpu_share": cpu.ravel(),
        "pss_bytes": pss.ravel(),
        "sockets": np.repeat(np.round(10_000 * grown), len(PROCESSES)),
    }


def _happened(folder: Path, turns: dict[str, Any], storm_at: float | None) -> None:
    marks = [{"at_s": 5.0, "kind": "phase", "text": "steady"}]
    if storm_at is not None:
        marks.append({"at_s": storm_at, "kind": "storm", "text": "5,000 sockets cut at once"})
    failed = turns["intended_s"][turns["outcome"] == 2]
    errors = [
        {
            "at_s": round(float(at), 3),
            "type": "timeout" if n % 3 else "<script>alert(1)</script>",
            "detail": "no end",
        }
        for n, at in enumerate(failed)
    ]
    (folder / "marks.jsonl").write_text("".join(json.dumps(mark) + "\n" for mark in marks))
    (folder / "errors.jsonl").write_text("".join(json.dumps(error) + "\n" for error in errors))


def _about(
    name: str,
    turns: dict[str, Any],
    *,
    seconds: float,
    seed: int,
    invalid: tuple[str, ...],
) -> dict[str, Any]:
    first_ms = (turns["first_s"] - turns["intended_s"]) * 1000
    p95, p99 = (float(value) for value in np.nanpercentile(first_ms, (95, 99)))
    failed = int((turns["outcome"] == 2).sum())
    types = {"timeout": failed - (failed + 2) // 3, "<script>alert(1)</script>": (failed + 2) // 3}
    targets = [
        _target("first_token_p95_ms", p95, "ms", 100.0),
        _target("first_token_p99_ms", p99, "ms", 100.0),
        _target("errors", failed, "", 0.0),
        _target("memory_gb", 2.6, "GB", 3.0),
    ]
    half = seconds / 2
    return {
        "name": name,
        "scenario": {"about": "Ten thousand conversations, a turn every 30 s.", "slo": {"first_ms": 250.0}},
        "seed": seed,
        "command": "flotilla bench run ten-thousand --seed 7",
        "started_at": "2026-11-22T10:00:00Z",
        "machine": {"cores": 2, "memory_bytes": 16 << 30, "cpu": "a processor"},
        "commit": "0123abc",
        "seconds": seconds,
        "phases": [
            {"name": "ramp", "from_s": 0, "to_s": 5},
            {"name": "steady", "from_s": 5, "to_s": half},
            {"name": "storm", "from_s": half, "to_s": seconds},
        ],
        "valid": not invalid,
        "invalid_because": list(invalid),
        "generator": {
            "processes": 2,
            "lag_ms": {"p50": 0.3, "p99": 2.2, "max": 9.1},
            "cpu_share_max": 0.61,
            "client": "lean",
        },
        "targets": [
            target | {"better": "lower", "met": target["value"] <= target["target"]} for target in targets
        ],
        "errors": {type: count for type, count in types.items() if count},
        "agreement": {"client_ms": 1012.4, "server_ms": 1008.9, "ratio": 1.0035},
    }


def _target(measure: str, value: float, unit: str, target: float) -> dict[str, Any]:
    met = bool(value <= target)
    return {"measure": measure, "value": value, "unit": unit, "target": target, "better": "lower", "met": met}


if __name__ == "__main__":
    out = Path(sys.argv[1])
    write(out / "before", seed=1, slower=0.7, storm_at=None)
    write(out / "now", seed=2, storm_at=60.0, shed=0.01)
    write(out / "invalid", seed=3, invalid=("the generator lagged: p99 41 ms, at most 25 ms is allowed",))
