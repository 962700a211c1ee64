"""The figures that targets are about, from the columns of a run. Their ids are those of RESULTS.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.load.notes import COMPLETED, ERROR, SHED, UNFINISHED
from benchmarks.load.scenario import Target

Columns = Mapping[str, npt.NDArray[Any]]
NONE = float("nan")

UNITS = {"_ms": "ms", "_s": "s", "_mb": "MB", "_bytes": "B", "per_s": "1/s", "_over_knee": "", "_ratio": ""}


def unit(measure: str) -> str:
    """By the end of its name: the unit comes last."""
    return next((unit for end, unit in UNITS.items() if measure.endswith(end)), "")


def percentile(values: npt.NDArray[Any], q: float) -> float:
    """Of what happened; not a number if nothing did."""
    there = values[~np.isnan(values)]
    return float(np.percentile(there, q)) if len(there) else NONE


def of_turns(turns: Columns, seconds: float, slo_ms: float) -> dict[str, float]:
    """Of these turns, that were due in so many seconds. Latencies count from the intended start."""
    first_ms = (turns["first_s"] - turns["intended_s"]) * 1000
    outcome = turns["outcome"]
    good = (outcome == COMPLETED) & ((first_ms <= slo_ms) | np.isnan(first_ms))
    found = {f"first_token_p{q:g}_ms": percentile(first_ms, q) for q in (50, 95, 99, 99.9)}
    ends_ms = np.where(outcome == COMPLETED, (turns["end_s"] - turns["intended_s"]) * 1000, NONE)
    found |= {f"end_to_end_p{q:g}_ms": percentile(ends_ms, q) for q in (50, 95, 99)}
    found |= {f"overhead_p{q:g}_ms": percentile(turns["overhead"], q) for q in (50, 95, 99)}
    return found | {
        "turns": float(len(outcome)),
        "turns_per_s": len(outcome) / seconds if seconds else NONE,
        "completed": float((outcome == COMPLETED).sum()),
        "shed": float((outcome == SHED).sum()),
        "failed_turns": float((outcome == ERROR).sum()),
        "lost": float((outcome == UNFINISHED).sum()),
        "goodput_per_s": float(good.sum()) / seconds if seconds else NONE,
        "characters_per_s": float(turns["characters"].sum()) / seconds if seconds else NONE,
        "deltas_per_s": float(turns["deltas"].sum()) / seconds if seconds else NONE,
    }


def of_resources(resources: Columns, legend: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`server_memory_mb` is the highest sum over all server processes; `bytes_per_open_socket` is the slope of
    that sum over the sockets while they were being opened, before anything was said."""
    servers = [n for n, process in enumerate(legend) if process["server"]]
    mine = np.isin(resources["process"], servers)
    if not mine.any():
        return {}
    times, at = np.unique(resources["at_s"][mine], return_inverse=True)
    memory = np.bincount(at, weights=resources["pss_bytes"][mine])
    sockets = np.zeros(len(times))
    sockets[at] = resources["sockets"][mine]
    opening = slice(0, int(sockets.argmax()) + 1)
    found = {"server_memory_mb": float(memory.max()) / 2**20, "open_sockets": float(sockets.max())}
    if sockets[opening].max() - sockets[0] >= 100:
        found["bytes_per_open_socket"] = float(np.polyfit(sockets[opening], memory[opening], 1)[0])
    return found


HOPS = ("queued", "retrieval", "prompt", "first_token", "generation")
"""Of `reply.completed.timing`: together they are the time from the message to the last of its text."""


def agreement(turns: Columns) -> dict[str, float]:
    """What clients measured of finished turns, from sending to the last text, beside the sum of what the fleet
    says: medians, and the median of each turn's ratio. `ended_ratio` is that from sending to `reply.completed`
    over `timing.total`: the fleet writes that down before it commits it, so the commit is the client's alone."""
    done = (turns["outcome"] == COMPLETED) & (turns["total"] > 0)
    said_ms = sum((turns[hop][done] for hop in HOPS), np.zeros(int(done.sum())))
    if not len(said_ms):
        return {"client_ms": NONE, "server_ms": NONE, "ratio": NONE, "ended_ratio": NONE}
    shown_ms = (turns["last_s"] - turns["sent_s"])[done] * 1000
    ended_ms = (turns["end_s"] - turns["sent_s"])[done] * 1000
    return {
        "client_ms": round(percentile(shown_ms, 50), 3),
        "server_ms": round(percentile(said_ms, 50), 3),
        "ratio": round(percentile(shown_ms / said_ms, 50), 5),
        "ended_ratio": round(percentile(ended_ms / turns["total"][done], 50), 5),
    }


def of_phase(turns: Columns, phases: Sequence[Mapping[str, Any]], name: str) -> tuple[Columns, float]:
    """The turns of the phases of this name, and how long those took; of all that had turns if it is ""."""
    numbers = [n for n, phase in enumerate(phases) if not name or phase["name"] == name]
    mine = np.isin(turns["phase"], numbers)
    talking = [n for n in numbers if (turns["phase"] == n).any()]
    seconds = sum(float(phases[n]["to_s"] - phases[n]["from_s"]) for n in talking)
    return {column: values[mine] for column, values in turns.items()}, seconds


def judged(targets: Sequence[Target], measure: Callable[[str, str], float]) -> list[dict[str, Any]]:
    """A verdict for each target; what was not measured is not met."""
    found: list[dict[str, Any]] = []
    for target in targets:
        value = measure(target.measure, target.phase)
        better = value <= target.target if target.better == "lower" else value >= target.target
        found.append(
            {
                "measure": f"{target.measure} in {target.phase}" if target.phase else target.measure,
                "value": None if np.isnan(value) else round(float(value), 4),
                "unit": unit(target.measure),
                "target": target.target,
                "better": target.better,
                "met": bool(better),
            }
        )
    return found
