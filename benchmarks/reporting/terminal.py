"""What the report says in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.reporting.comparison import Difference
from benchmarks.reporting.folder import Run
from benchmarks.reporting.tables import WORDS, change, value
from flotilla.core.errors import FlotillaError

COLOURS = {"better": "green", "worse": "bold red", "same": "dim", "unsure": "yellow"}
console = Console(highlight=False)


def fail(error: FlotillaError) -> None:
    said = Console(stderr=True, highlight=False)
    said.print(f"[bold red]{error.title}[/]{f' ({error.field})' if error.field else ''}", soft_wrap=True)
    said.print(error.detail, markup=False, soft_wrap=True)
    if error.next:
        said.print(f"→ {error.next}", markup=False, soft_wrap=True)


def summary(run: Run, path: Path) -> None:
    """The verdicts, and where the page is."""
    _invalid(run)
    if run.about.targets:
        console.print(_targets(run))
    console.print(f"Wrote {path}", markup=False, soft_wrap=True)


def _targets(run: Run) -> Table:
    table = Table("measure", "value", "target", "", title=run.about.name, box=None, title_justify="left")
    for one in sorted(run.about.targets, key=lambda target: target.met):
        sign = "≤" if one.better == "lower" else "≥"
        word = "[green]met[/]" if one.met else "[bold red]MISSED[/]"
        table.add_row(
            one.measure,
            "–" if one.value is None else value(one.value, one.unit),
            f"{sign} {value(one.target, one.unit)}",
            word,
        )
    return table


def differences(before: Run, after: Run, found: Sequence[Difference]) -> None:
    for run in (before, after):
        _invalid(run)
    table = Table("measure", before.about.name, after.about.name, "change", "95 % of draws", "", box=None)
    for one in found:
        table.add_row(
            one.measure,
            value(one.before, one.unit),
            value(one.after, one.unit),
            change(one.change, one.unit),
            f"{change(one.low, one.unit)} … {change(one.high, one.unit)}",
            f"[{COLOURS[one.word]}]{WORDS[one.word]}[/]",
        )
    wide = console if console.is_terminal else Console(highlight=False, width=160)
    wide.print(table)


def _invalid(run: Run) -> None:
    if not run.about.valid:
        console.print(
            f"[bold red]The run {run.about.name} is invalid[/]: its figures prove nothing.", soft_wrap=True
        )
        for reason in run.about.invalid_because:
            console.print(f"  - {reason}", markup=False, soft_wrap=True)
