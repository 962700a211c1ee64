"""The report: one page that needs nothing but itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reporting import drawing, tables
from benchmarks.reporting.charts import Bar, Chart
from benchmarks.reporting.comparison import Difference
from benchmarks.reporting.folder import Run
from benchmarks.reporting.hops import END_PARTS, FIRST_PARTS, PARTS, end_bands, first_bands
from benchmarks.reporting.plots import PART_COLOURS, Plots, bars

HERE = Path(__file__).parent


class Page:
    """Collects the plots as they are placed, since the page's script wants their values."""

    def __init__(self, run: Run, baseline: Run | None = None, differences: Sequence[Difference] = ()) -> None:
        self._run = run
        self._baseline = baseline
        self._differences = differences
        self._plots = Plots(run, baseline)
        self._charts: list[Chart] = []

    def html(self) -> str:
        about = self._run.about
        body = "".join(self._sections())
        values = json.dumps([_values(chart) for chart in self._charts], separators=(",", ":"))
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<title>{escape(about.name)}</title><link rel="icon" href="data:,">'
            f"<style>{(HERE / 'style.css').read_text()}</style></head><body><main>{body}</main>"
            f'<div id="tip" hidden></div><script type="application/json" id="charts">{_inert(values)}</script>'
            f"<script>{(HERE / 'page.js').read_text()}</script></body></html>"
        )

    def _sections(self) -> Iterable[str]:
        run, plots = self._run, self._plots
        yield tables.head(run)
        yield tables.validity(run)
        yield tables.tiles(run)
        yield _section("Targets", tables.targets(run))
        if self._baseline is not None:
            yield _section(
                f"Against {escape(self._baseline.about.name)}", tables.differences(self._differences)
            )
        yield _section("Latency", tables.percentiles(run) + self._grid(plots.latencies()))
        yield _section("Where a turn loses its time", self._hops())
        yield _section(
            "Throughput and errors",
            self._grid([plots.throughput(), plots.in_flight(), plots.outcomes(), plots.errors()])
            + tables.errors(run),
        )
        yield _section("Machine and generator", self._grid(plots.resources()) + tables.generator(run))
        yield _section("The run", tables.phases(run) + tables.marks(run) + tables.scenario(run))
        yield tables.foot()

    # -- plots

    def _grid(self, charts: Sequence[Chart]) -> str:
        return f'<div class="grid">{"".join(self._card(chart) for chart in charts)}</div>'

    def _card(self, chart: Chart) -> str:
        if not any(np.isfinite(series.y).any() for series in chart.series):
            nothing = '<p class="about">Nothing was seen.</p>'
            return f'<section class="card"><h3>{escape(chart.title)}</h3>{nothing}</section>'
        self._charts.append(chart)
        drawn = drawing.draw(chart, len(self._charts) - 1)
        return (
            f'<section class="card"><h3>{escape(chart.title)}</h3><p class="about">{escape(chart.about)}</p>'
            f'<div class="legend">{drawing.legend(chart.series)}</div>{drawn}</section>'
        )

    def _hops(self) -> str:
        first, end = bars(first_bands(self._run)), bars(end_bands(self._run))
        if not first:
            return '<p class="about">No reply brought its timing.</p>'
        return (
            '<div class="grid">'
            + _bars("To the first token", first, FIRST_PARTS)
            + _bars("To the end of the reply", end, END_PARTS)
            + "</div>"
        )


def _bars(title: str, rows: Sequence[Bar], parts: Sequence[str]) -> str:
    about = (
        "Turns around each percentile of what the client saw, and the mean of their parts as the fleet "
        "measured them (reply.completed.timing); the way is what is left."
    )
    legend = "".join(
        f'<span><i style="color:var(--{PART_COLOURS[part]})"></i>{escape(PARTS[part])}</span>'
        for part in parts
    )
    return (
        f'<section class="card"><h3>{title}</h3><p class="about">{about}</p><div class="legend">{legend}</div>'
        f"{drawing.bars(rows, 'ms')}</section>"
    )


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>{content}"


def _values(chart: Chart) -> dict[str, Any]:
    """What the script shows under the pointer: places across, and values of three digits."""
    return {
        "title": chart.title,
        "timed": chart.timed,
        "unit": chart.y.unit,
        "from": chart.x.low,
        "until": chart.x.high,
        "left": drawing.LEFT,
        "right": drawing.WIDTH - drawing.RIGHT,
        "series": [
            {
                "name": series.name,
                "colour": series.colour,
                "p": [round(place, 4) for place in chart.x.place(series.x).tolist()],
                "v": [_value(value) for value in series.shown.tolist()],
            }
            for series in chart.series
        ],
    }


def _value(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _inert(text: str) -> str:
    """So that no name of a process or an error ends the script."""
    return text.replace("<", "\\u003c")
