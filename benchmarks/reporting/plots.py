"""The plots of a run, each with that of a baseline laid over it where there is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.reporting import axes, hops, rates
from benchmarks.reporting.axes import Axis
from benchmarks.reporting.charts import Bar, Chart, Series, stacked
from benchmarks.reporting.folder import Floats, Run
from benchmarks.reporting.latencies import (
    QUANTILES,
    Latency,
    distribution,
    edges,
    latencies,
    over_time,
    percentiles,
)
from benchmarks.reporting.watched import Watched, watched

QUANTILE_COLOURS = ("q1", "q2", "q3", "q4", "q5")
BASELINE_QUANTILES = (50.0, 99.0)
PALETTE = (*(f"c{n}" for n in range(1, 13)), "mute")
PART_COLOURS = dict(zip(hops.PARTS, ("mute", "c1", "c4", "c8", "c2", "c5", "c7", "c3"), strict=True))


class Plots:
    """All of one run; they share their times, and their marks and phases."""

    def __init__(self, run: Run, baseline: Run | None = None) -> None:
        self.run = run
        self.baseline = baseline
        self._edges = edges(run.seconds)
        self._middles = (self._edges[:-1] + self._edges[1:]) / 2
        self._x = axes.seconds(run.seconds)
        # Phases are shaded and have their names there.
        self._marks = tuple(mark for mark in run.marks if mark.kind != "phase")

    def _over_time(
        self,
        title: str,
        about: str,
        y: Axis,
        series: tuple[Series, ...],
        limit: tuple[float, str] | None = None,
    ) -> Chart:
        return Chart(
            title=title,
            about=about,
            x=self._x,
            y=y,
            series=series,
            limit=limit,
            marks=self._marks,
            phases=self.run.about.phases,
        )

    # -- latencies

    def latencies(self) -> list[Chart]:
        """Of each measure its percentiles over time, then its distribution."""
        before = {one.name: one for one in latencies(self.baseline)} if self.baseline else {}
        charts: list[Chart] = []
        for one in latencies(self.run):
            charts += [self._percentiles(one, before.get(one.name)), _distribution(one, before.get(one.name))]
        return charts

    def _percentiles(self, latency: Latency, before: Latency | None) -> Chart:
        series = self._quantiles(latency)
        if before is not None:
            series += self._before(before)
        limit = (self.run.slo_first_ms, "SLO") if latency.name == "first" else None
        y = axes.logarithmic([one.y for one in series], "ms")
        return self._over_time(f"{latency.title} over time", latency.about, y, series, limit)

    def _quantiles(self, latency: Latency) -> tuple[Series, ...]:
        rows = over_time(latency, self._edges)
        return tuple(
            Series(name=f"p{quantile:g}", x=self._middles, y=row, colour=colour)
            for quantile, row, colour in zip(QUANTILES, rows, QUANTILE_COLOURS, strict=True)
        )

    def _before(self, latency: Latency) -> tuple[Series, ...]:
        return tuple(
            replace(series, name=f"baseline {series.name}", dashed=True)
            for series, quantile in zip(self._quantiles(latency), QUANTILES, strict=True)
            if quantile in BASELINE_QUANTILES
        )

    # -- how much

    def throughput(self) -> Chart:
        rows = rates.throughput(self.run, self._edges)
        series = self._lines(rows, ("mute", "c1", "c5"))
        if self.baseline:
            before = rates.throughput(self.baseline, self._edges)["goodput"]
            series += (Series(name="baseline goodput", x=self._middles, y=before, colour="c5", dashed=True),)
        about = (
            "Turns a second: those that were to begin, those that were completed, and those that kept the SLO "
            f"(completed, first token within {axes.short(self.run.slo_first_ms)} ms of when they were to begin)."
        )
        return self._over_time(
            "Throughput and goodput", about, axes.linear([one.y for one in series], "1/s"), series
        )

    def in_flight(self) -> Chart:
        counts = rates.in_flight(self.run, self._edges[1:])
        series = (Series(name="in flight", x=self._edges[1:], y=counts, colour="c7"),)
        about = "Turns that have begun, or were to, and have not ended."
        return self._over_time("Turns in flight", about, axes.linear([counts]), series)

    def outcomes(self) -> Chart:
        return self._stack(
            "Turns that did not complete",
            "By when they were to begin. Shed: refused with 429 or 503 and Retry-After.",
            rates.outcomes(self.run, self._edges),
            "1/s",
            ("c2", "c3", "c7", "c10"),
        )

    def errors(self) -> Chart:
        return self._stack("Errors by type", "", rates.errors(self.run, self._edges), "1/s", PALETTE[1:])

    def _lines(self, rows: dict[str, Floats], colours: tuple[str, ...]) -> tuple[Series, ...]:
        return tuple(
            Series(name=name, x=self._middles, y=row, colour=colour)
            for (name, row), colour in zip(rows.items(), colours, strict=False)
        )

    def _stack(
        self, title: str, about: str, rows: dict[str, Floats], unit: str, colours: tuple[str, ...]
    ) -> Chart:
        series = stacked(self._middles, rows, colours)
        y = axes.linear([series[-1].y] if series else [], unit)
        return self._over_time(title, about, y, series)

    # -- machines

    def resources(self) -> list[Chart]:
        seen = watched(self.run, self._edges)
        memory = {usage.name: usage.pss_mib for usage in seen.usages if usage.server}
        cpu = {usage.name: usage.cpu for usage in seen.usages}
        return [
            self._stack(
                "Memory of the fleet",
                "Proportional set size: shared pages count once. The generator's is left out.",
                memory,
                "MiB",
                PALETTE,
            ),
            self._stack("Processors", "Cores in use, the generator's too.", cpu, "cores", PALETTE),
            self._sockets(seen),
            self._lag(),
        ]

    def _sockets(self, seen: Watched) -> Chart:
        series = (Series(name="open sockets", x=self._middles, y=seen.sockets, colour="c1"),)
        return self._over_time("Open sockets", "Of clients.", axes.linear([seen.sockets]), series)

    def _lag(self) -> Chart:
        """The generator's own lateness: what it adds to every latency here."""
        turns = self.run.turns
        at, ms = turns["intended_s"], (turns["sent_s"] - turns["intended_s"]) * 1000
        there = np.isfinite(ms)
        order = np.argsort(at[there], kind="stable")
        lag = Latency(
            name="lag", title="", about="", at_s=at[there][order], ms=np.maximum(ms[there][order], 1e-3)
        )
        series = self._quantiles(lag)
        about = "From when a message was to be sent to when it was. It is counted in the latencies above."
        return self._over_time(
            "Lateness of the generator", about, axes.logarithmic([one.y for one in series], "ms"), series
        )


def _distribution(latency: Latency, before: Latency | None) -> Chart:
    series = [_cumulative(latency, latency.title.lower(), dashed=False)]
    if before is not None:
        series.append(_cumulative(before, "baseline", dashed=True))
    return Chart(
        title=f"{latency.title}: distribution",
        about=f"The share that took at most so long, of {len(latency.ms):,}. Each line up is one more nine.",
        x=axes.logarithmic([one.x for one in series], "ms"),
        y=Axis(low=0.0, high=99.999 if len(latency.ms) > 10_000 else 99.99, kind="nines", unit="%"),
        series=tuple(series),
        timed=False,
    )


def _cumulative(latency: Latency, name: str, *, dashed: bool) -> Series:
    ms, at = distribution(latency.ms)
    return Series(name=name, x=np.maximum(ms, 1e-3), y=at, colour="c3" if dashed else "c1", dashed=dashed)


def bars(bands: tuple[hops.Band, ...]) -> list[Bar]:
    return [
        Bar(
            name=band.name,
            about=f"mean of {band.turns:,} turns",
            parts=tuple((hops.PARTS[part], ms, PART_COLOURS[part]) for part, ms in band.parts.items()),
        )
        for band in bands
    ]


def rows(run: Run) -> list[tuple[str, int, Floats]]:
    """Title, count and percentiles of each measure, the highest value last."""
    found: list[tuple[str, int, Floats]] = []
    for one in latencies(run):
        highest = float(one.ms.max()) if len(one.ms) else float("nan")
        found.append((one.title, len(one.ms), np.append(percentiles(one.ms), highest)))
    return found
