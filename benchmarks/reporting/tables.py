"""The page's tables and words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from benchmarks.reporting import plots
from benchmarks.reporting.axes import short
from benchmarks.reporting.comparison import SHARE, Difference
from benchmarks.reporting.folder import COMPLETED, OUTCOMES, WAYS, Run, Verdict
from benchmarks.reporting.latencies import QUANTILES, edges, latencies, within
from benchmarks.reporting.latencies import percentiles as of
from benchmarks.reporting.rates import good
from benchmarks.reporting.watched import watched

FAILURES_SHOWN = 50
MARKS_SHOWN = 200
WORDS = {"better": "better", "worse": "worse", "same": "no difference", "unsure": "too little to say"}


def head(run: Run) -> str:
    about, machine = run.about, run.about.machine
    client = about.generator.client if about.generator else ""
    facts = [about.started_at, f"commit {about.commit}", f"seed {about.seed}", _machine(machine)]
    facts += [f"{client} client"] * bool(client)
    said = " · ".join(escape(fact) for fact in facts if fact)
    purpose = str(about.scenario.get("about", ""))
    return (
        f'<header><h1>{escape(about.name)}</h1><span class="soft">{said}</span></header>'
        f"<p>{escape(purpose)}</p><p><code>{escape(about.command)}</code></p>"
    )


def _machine(machine: dict[str, Any]) -> str:
    memory = machine.get("memory_bytes")
    parts = [str(machine.get("cpu", "")), f"{machine.get('cores', '?')} cores"]
    return ", ".join(part for part in [*parts, f"{memory / 2**30:.0f} GiB" if memory else ""] if part)


def validity(run: Run) -> str:
    """First of all: whether the figures may be believed."""
    about = run.about
    if not about.valid:
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in about.invalid_because)
        return (
            '<div class="banner bad" data-testid="validity">This run is invalid: its figures prove nothing.'
            f"<ul>{reasons}</ul></div>"
        )
    missed = sum(not target.met for target in about.targets)
    if missed:
        return (
            f'<div class="banner warn" data-testid="validity">Valid; {missed} of {len(about.targets)} targets '
            "are missed.</div>"
        )
    words = (
        f"Valid; all {len(about.targets)} targets are met." if about.targets else "Valid; it has no targets."
    )
    return f'<div class="banner good" data-testid="validity">{words}</div>'


def tiles(run: Run) -> str:
    first, gap, end = (one.ms for one in latencies(run))
    seen = watched(run, edges(run.seconds))
    turns, kept = len(run.turns["outcome"]), int(good(run).sum())
    completed = int((run.turns["outcome"] == COMPLETED).sum())
    memory = seen.total_mib()
    shown = [
        (short(float(of(first)[0])), "ms", "first token, p50"),
        (short(float(of(first)[2])), "ms", "first token, p95"),
        (short(float(of(first)[3])), "ms", "first token, p99"),
        (short(float(of(gap)[3])), "ms", "inter-token, p99"),
        (short(float(of(end)[3])), "ms", "end to end, p99"),
        (f"{completed:,}", f"of {turns:,}", "turns completed"),
        (short(kept / run.seconds), "1/s", "goodput"),
        (f"{sum(run.about.errors.values()):,}", "", "errors"),
        (short(float(np.nanmax(seen.sockets, initial=0.0))), "", "open sockets, most"),
        (short(float(memory.max(initial=0.0))), "MiB", "memory of the fleet, most"),
    ]
    drawn = "".join(
        f'<div class="tile"><b>{value} <small>{unit}</small></b><span>{name}</span></div>'
        for value, unit, name in shown
    )
    return f'<div class="tiles">{drawn}</div>'


def targets(run: Run) -> str:
    if not run.about.targets:
        return '<p class="about">The scenario names none.</p>'
    ordered = sorted(run.about.targets, key=lambda target: target.met)
    return _table(("measure", "value", "target", "share of it", "verdict"), (_target(one) for one in ordered))


def _target(one: Verdict) -> list[str]:
    sign = "≤" if one.better == "lower" else "≥"
    word = "met" if one.met else "missed"
    return [
        escape(one.measure.removesuffix(f"_{one.unit.lower()}").replace("_", " ")),
        f"<b>{'–' if one.value is None else short(one.value)}</b> {escape(one.unit)}",
        f"{sign} {short(one.target)} {escape(one.unit)}",
        _meter(one),
        f'<span class="pill {word}">{word}</span>',
    ]


def _meter(one: Verdict) -> str:
    """The target is in the middle."""
    if one.value is None or not one.target:
        return ""
    share = min(1.0, one.value / one.target / 2)
    kind = "" if one.met else "missed-bar"
    return f'<span class="meter {kind}"><i style="width:{share:.0%}"></i><u></u></span>'


def percentiles(run: Run) -> str:
    names = ("", *(f"p{quantile:g}" for quantile in QUANTILES), "highest", "count")
    rows = [
        [title, *(value(float(one), "ms") for one in values), f"{count:,}"]
        for title, count, values in plots.rows(run)
    ]
    turns = run.turns
    missing = np.isnan(turns["first_s"]) & (turns["outcome"] != COMPLETED)
    note = f"{int(missing.sum()):,} turns got no answer: they are in no percentile, and not in the goodput."
    return _table(names, rows, note if missing.any() else "")


def differences(found: Sequence[Difference]) -> str:
    rows = [
        [
            escape(one.measure),
            value(one.before, one.unit),
            f"<b>{value(one.after, one.unit)}</b>",
            change(one.change, one.unit),
            f"{change(one.low, one.unit)} … {change(one.high, one.unit)}",
            f'<span class="pill {one.word}">{WORDS[one.word]}</span>',
        ]
        for one in found
    ]
    note = (
        "Both runs were drawn again a thousand times from their blocks of time; 95 of 100 changes lie in the range. "
        "A change is called one if it is larger than the threshold and the range does not hold 0."
    )
    return _table(("measure", "before", "now", "change", "95 % of draws", "verdict"), rows, note)


def value(value: float, unit: str) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:.2%}" if unit == SHARE else f"{short(value)} {unit}"


def change(change: float, unit: str) -> str:
    """Shares differ by points of a hundred."""
    return f"{change * 100:+.2f} points" if unit == SHARE else f"{change:+.1%}"


def errors(run: Run) -> str:
    counts = sorted(run.about.errors.items(), key=lambda item: -item[1])
    outcomes = Counter(run.turns["outcome"].tolist())
    said = ", ".join(f"{outcomes[n]:,} {name}" for n, name in enumerate(OUTCOMES) if outcomes[n])
    rows = [[f"<code>{escape(type)}</code>", f"{count:,}"] for type, count in counts]
    table = (
        _table(("error", "count"), rows, f"Turns: {said}.")
        if rows
        else f'<p class="about">Turns: {said}.</p>'
    )
    kept = [
        [f"{one.at_s:.2f}", escape(one.type), escape(one.detail)] for one in run.failures[:FAILURES_SHOWN]
    ]
    if not kept:
        return table
    shown = _table(("at (s)", "type", "detail"), kept)
    return f"{table}<details><summary>The first {len(kept)} errors</summary>{shown}</details>"


def generator(run: Run) -> str:
    made = run.about.generator
    if made is None:
        return '<p class="about">Nothing is known of it.</p>'
    agreement = run.about.agreement
    ratio = agreement.get("ratio")
    row = [
        escape(made.client),
        str(made.processes),
        *(f"{short(value)} ms" for value in (made.lag_ms.p50, made.lag_ms.p99, made.lag_ms.max)),
        short(made.cpu_share_max),
        f"{short(agreement.get('client_ms'))} / {short(agreement.get('server_ms'))} ms",
        f"{(ratio - 1):+.2%}" if ratio else "–",
    ]
    names = ("client", "processes", "late p50", "late p99", "late, most", "busiest, cores")
    return _table((*names, "client / server timing", "apart"), [row])


def phases(run: Run) -> str:
    first, _, end = latencies(run)
    intended, kept = run.turns["intended_s"], good(run)
    rows: list[list[str]] = []
    for span in run.about.phases:
        inside = (intended >= span.from_s) & (intended < span.to_s)
        length = max(span.to_s - span.from_s, 1e-9)
        figures = [
            *of(within(first, span.from_s, span.to_s))[[0, 2, 3]],
            of(within(end, span.from_s, span.to_s))[3],
        ]
        rows.append(
            [
                escape(span.name),
                f"{span.from_s:.0f}–{span.to_s:.0f} s",
                short(inside.sum() / length),
                short(kept[inside].sum() / length),
                *(value(float(figure), "ms") for figure in figures),
            ]
        )
    names = ("phase", "when", "turns/s", "goodput/s", "first p50", "first p95", "first p99", "end p99")
    return (_table(names, rows) if rows else "") + _ways(run)


def _ways(run: Run) -> str:
    turns = run.turns
    ms = (turns["first_s"] - turns["intended_s"]) * 1000
    rows: list[list[str]] = []
    for number, name in enumerate(WAYS):
        chosen = turns["way"] == number
        if chosen.any():
            values = of(ms[chosen & np.isfinite(ms)])
            done = int((turns["outcome"][chosen] == COMPLETED).sum())
            rows.append(
                [name, f"{int(chosen.sum()):,}", f"{done:,}", *(value(float(one), "ms") for one in values)]
            )
    names = ("way in", "turns", "completed", *(f"first p{quantile:g}" for quantile in QUANTILES))
    return _table(names, rows) if rows else ""


def marks(run: Run) -> str:
    rows = [
        [f"{mark.at_s:.1f}", escape(mark.kind), escape(mark.text)]
        for mark in run.marks[:MARKS_SHOWN]
        if mark.kind != "phase"
    ]
    if not rows:
        return ""
    table = _table(("at (s)", "what", ""), rows)
    return f"<details open><summary>What was done to the fleet</summary>{table}</details>"


def scenario(run: Run) -> str:
    about = run.about
    told = {"scenario": about.scenario, "machine": about.machine, "seconds": about.seconds}
    text = escape(json.dumps(told, indent=2, ensure_ascii=False))
    return f"<details><summary>Scenario and machine</summary><pre><code>{text}</code></pre></details>"


def foot() -> str:
    return (
        "<footer>Latencies count from the moment when a message was to be sent, not from when the generator "
        "got round to it (coordinated omission). How to read this page: docs/report.md.</footer>"
    )


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> str:
    head = "".join(f"<th{_wraps(names, n)}>{name}</th>" for n, name in enumerate(names))
    body = "".join(
        f"<tr>{''.join(f'<td{_wraps(names, n)}>{cell}</td>' for n, cell in enumerate(row))}</tr>"
        for row in rows
    )
    under = f'<p class="about">{note}</p>' if note else ""
    return (
        f'<section class="card wide" style="margin-bottom:16px"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>{under}</section>"
    )


def _wraps(names: Sequence[str], column: int) -> str:
    return ' class="text"' if names[column] in ("detail", "what", "", "type") else ""
