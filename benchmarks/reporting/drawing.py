"""Charts as SVG. Colours are variables of the style sheet, so that light and dark need no second drawing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from benchmarks.reporting.axes import short
from benchmarks.reporting.charts import Bar, Chart, Series
from benchmarks.reporting.folder import Floats

WIDTH, HEIGHT = 720, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 20, 28
BAR_HEIGHT, BAR_GAP = 26, 12
LABEL_WIDTH = 70
VALUE_WIDTH = 80
MARK_KINDS_BAD = ("kill", "cut", "storm", "fault")


def draw(chart: Chart, number: int) -> str:
    """One chart. `number` says to the page's script whose values to show."""
    parts = [
        *_phases(chart),
        *_grid(chart),
        *(_series(chart, series, index) for index, series in enumerate(chart.series)),
        *_limit(chart),
        *_marks(chart),
        f'<line class="cross" y1="{TOP}" y2="{HEIGHT - BOTTOM}" visibility="hidden"/>',
    ]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}" '
        f'class="chart{" timed" if chart.timed else ""}" data-chart="{number}">{"".join(parts)}</svg>'
    )


def _across(places: Floats) -> Floats:
    return LEFT + places * (WIDTH - LEFT - RIGHT)


def _down(places: Floats) -> Floats:
    return HEIGHT - BOTTOM - places * (HEIGHT - TOP - BOTTOM)


def _grid(chart: Chart) -> Iterator[str]:
    for place, label in chart.y.ticks:
        y = _down(np.array([place])).item()
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    for place, label in chart.x.ticks:
        x = _across(np.array([place])).item()
        yield f'<line class="grid faint" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{label}</text>'
    yield f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 1}" text-anchor="end">{chart.x.unit}</text>'
    yield f'<text class="tick" x="{LEFT - 6}" y="{TOP - 8}" text-anchor="end">{chart.y.unit}</text>'


def _series(chart: Chart, series: Series, index: int) -> str:
    x, y = _across(chart.x.place(series.x)), _down(chart.y.place(series.y))
    if series.base is not None:
        base = _down(chart.y.place(series.base))
        path = _path(np.concatenate([x, x[::-1]]), np.concatenate([y, base[::-1]])) + "Z"
        kind, paint = "area", f"fill:var(--{series.colour})"
    else:
        path, paint = _path(x, y), f"stroke:var(--{series.colour})"
        kind = "curve dashed" if series.dashed else "curve"
    return f'<path class="{kind}" data-series="{index}" style="{paint}" d="{path}"/>'


def _path(x: Floats, y: Floats) -> str:
    """Broken where there is no value."""
    words: list[str] = []
    drawing = False
    for across, down in zip(x.tolist(), y.tolist(), strict=True):
        if math.isnan(across) or math.isnan(down):
            drawing = False
            continue
        words.append(f"{'L' if drawing else 'M'}{across:.1f} {down:.1f}")
        drawing = True
    return "".join(words)


def _limit(chart: Chart) -> Iterator[str]:
    if chart.limit is None or not chart.y.low <= chart.limit[0] <= chart.y.high:
        return
    value, label = chart.limit
    y = float(_down(chart.y.place(np.array([value])))[0])
    yield f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    yield f'<text class="limit" x="{WIDTH - RIGHT - 4}" y="{y - 4:.1f}" text-anchor="end">{escape(label)}</text>'


def _marks(chart: Chart) -> Iterator[str]:
    for mark in chart.marks:
        x = float(_across(chart.x.place(np.array([mark.at_s])))[0])
        kind = "bad" if any(word in mark.kind for word in MARK_KINDS_BAD) else "plain"
        told = escape(f"{mark.at_s:.1f} s: {mark.kind} {mark.text}")
        yield (
            f'<g class="mark {kind}"><title>{told}</title><line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" '
            f'y2="{HEIGHT - BOTTOM}"/><path d="M{x - 4:.1f} {TOP - 5}h8l-4 6z"/></g>'
        )


def _phases(chart: Chart) -> Iterator[str]:
    for index, phase in enumerate(chart.phases):
        ends = _across(chart.x.place(np.array([phase.from_s, phase.to_s])))
        x, width = float(ends[0]), float(ends[1] - ends[0])
        if index % 2:
            yield (
                f'<rect class="phase" x="{x:.1f}" width="{width:.1f}" y="{TOP}" height="{HEIGHT - TOP - BOTTOM}"/>'
            )
        if width > 8 * len(phase.name):
            yield f'<text class="phase" x="{x + 5:.1f}" y="{TOP + 11}">{escape(phase.name)}</text>'


def legend(series: Sequence[Series]) -> str:
    """Buttons that hide and show."""
    return "".join(
        f'<button type="button" data-series="{index}" aria-pressed="true">'
        f'<i class="{"dashed" if one.dashed else ""}" style="color:var(--{one.colour})"></i>{escape(one.name)}'
        f"</button>"
        for index, one in enumerate(series)
    )


# -- stacked bars


def bars(rows: Sequence[Bar], unit: str) -> str:
    """Horizontal ones, on one scale."""
    longest = max((sum(value for _, value, _ in row.parts) for row in rows), default=1.0) or 1.0
    scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / longest
    height = len(rows) * (BAR_HEIGHT + BAR_GAP)
    drawn = "".join(_bar(row, number, scale, unit) for number, row in enumerate(rows))
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" class="bars">{drawn}</svg>'


def _bar(row: Bar, number: int, scale: float, unit: str) -> str:
    y, x = number * (BAR_HEIGHT + BAR_GAP), float(LABEL_WIDTH)
    total = sum(value for _, value, _ in row.parts)
    words = [
        f'<text class="label" x="{LABEL_WIDTH - 8}" y="{y + 18}" text-anchor="end">{escape(row.name)}</text>'
    ]
    for name, value, colour in row.parts:
        told = escape(f"{row.name}: {name}, {short(value)} {unit} of {short(total)}; {row.about}")
        words.append(
            f'<rect x="{x:.1f}" y="{y}" width="{max(0.0, value * scale):.1f}" height="{BAR_HEIGHT}" '
            f'style="fill:var(--{colour})"><title>{told}</title></rect>'
        )
        x += value * scale
    words.append(f'<text class="label" x="{x + 6:.1f}" y="{y + 18}">{short(total)} {unit}</text>')
    return "".join(words)
