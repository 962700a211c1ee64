"""Memory, processor time and sockets over time, by process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.reporting.folder import Floats, Run

PROCESSES_SHOWN = 11
"""The rest is summed up as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of one process; NaN before it was there and after it was gone. `cpu` is a share of one core."""

    name: str
    server: bool
    cpu: Floats
    pss_mib: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    at_s: Floats
    usages: tuple[Usage, ...]
    sockets: Floats

    def total_mib(self, *, server: bool = True) -> Floats:
        """Of all processes of the fleet together, or of the generator's."""
        parts = [usage.pss_mib for usage in self.usages if usage.server == server]
        return np.nansum(parts, axis=0) if parts else np.zeros(len(self.at_s))


def watched(run: Run, edges: Floats) -> Watched:
    """The means of each bin."""
    columns, bins = run.resources, len(edges) - 1
    bin = np.clip(np.searchsorted(edges, columns["at_s"], side="right") - 1, 0, bins - 1)
    usages = [
        Usage(
            name=named.name,
            server=named.server,
            cpu=_mean(bin, columns["cpu_share"], columns["process"] == index, bins),
            pss_mib=_mean(bin, columns["pss_bytes"] / 2**20, columns["process"] == index, bins),
        )
        for index, named in enumerate(run.processes)
    ]
    every = np.ones(len(bin), dtype=bool)
    return Watched(
        at_s=edges[:-1], usages=_fewer(usages), sockets=_mean(bin, columns["sockets"], every, bins)
    )


def _mean(bin: np.ndarray, values: np.ndarray, of: np.ndarray, bins: int) -> Floats:
    of = of & np.isfinite(values)
    counts = np.bincount(bin[of], minlength=bins)
    sums = np.bincount(bin[of], weights=values[of], minlength=bins)
    return np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0)


def _fewer(usages: list[Usage]) -> tuple[Usage, ...]:
    """The largest of the fleet's, then the rest of it as one, then the generator's as one."""
    ours = sorted((usage for usage in usages if usage.server), key=lambda usage: -_weight(usage))
    theirs = [usage for usage in usages if not usage.server]
    shown, rest = ours[:PROCESSES_SHOWN], ours[PROCESSES_SHOWN:]
    together = [_sum(f"{len(rest)} others", rest)] if rest else []
    generator = [_sum("generator", theirs)] if theirs else []
    return (*shown, *together, *generator)


def _weight(usage: Usage) -> float:
    """So that whoever is large in one of the two plots is shown."""
    values = (np.nan_to_num(usage.pss_mib).max(initial=0.0), 1000 * np.nan_to_num(usage.cpu).max(initial=0.0))
    return float(max(values))


def _sum(name: str, usages: list[Usage]) -> Usage:
    return Usage(
        name=name,
        server=usages[0].server,
        cpu=_together([usage.cpu for usage in usages]),
        pss_mib=_together([usage.pss_mib for usage in usages]),
    )


def _together(parts: list[Floats]) -> Floats:
    """NaN only where all are."""
    return np.where(np.isnan(parts).all(axis=0), np.nan, np.nansum(parts, axis=0))
