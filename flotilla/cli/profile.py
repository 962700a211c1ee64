"""`flotilla profile`: where a process of the fleet spends its time, as a flame graph or a table."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flotilla.cli.local import Local
from flotilla.cli.processes import choose, running
from flotilla.cli.screen import console
from flotilla.cli.spying import RATE_PER_S, record
from flotilla.cli.stacks import Function, functions, read
from flotilla.core.errors import Refused

PIPE_WIDTH = 200


def profile(
    process: Annotated[
        str,
        typer.Argument(metavar="[PROCESS]", help="host-0, gateway, librarian, model, …; else the busiest."),
    ] = "",
    *,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="How long it is watched.")] = 30,
    out: Annotated[
        Path | None, typer.Option(help=".svg: a flame graph; .json: speedscope; .txt: one stack a line.")
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Top functions by own time, in the terminal.")] = False,
    native: Annotated[bool, typer.Option("--native", help="Also frames of C and Cython.")] = False,
    gil: Annotated[bool, typer.Option("--gil", help="Only what holds the interpreter's lock.")] = False,
    top: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = 25,
) -> None:
    """Record where a process of the fleet on this machine spends its time. Put it under load first."""
    _check(cpu, out)
    local = Local()
    name, found = choose(running(local), process)
    flags = ["--native"] * native + ["--gil"] * gil
    console.print(f"Watching {name} (process {found.pid}) for {seconds} s.", markup=False)
    with tempfile.TemporaryDirectory() as folder:
        path = out or (Path(folder) / "stacks.txt" if cpu else _default(local, name))
        record(found.pid, name, seconds, path, flags)
        if cpu:
            _show(path, seconds * RATE_PER_S, top)
    if path.exists():
        console.print(f"Wrote {path}", soft_wrap=True, markup=False)


def _check(cpu: bool, out: Path | None) -> None:
    if cpu and out is not None and out.suffix != ".txt":
        raise Refused(
            "The table is made of stacks, one a line, and one recording writes one file.",
            field="--out",
            next="End its name in .txt, or leave --cpu out.",
        )


def _default(local: Local, name: str) -> Path:
    plain = re.sub(r"[^\w.-]+", "-", name)
    return local.home / "profiles" / f"{plain}-{datetime.now():%Y%m%d-%H%M%S}.svg"


def _show(stacks: Path, samples: int, top: int) -> None:
    found = functions(read(stacks.read_text()))
    # In a pipe there is no width to keep to, and a file that is cut is no file.
    wide = console if console.is_terminal else Console(highlight=False, width=PIPE_WIDTH)
    wide.print(_table(found[:top], samples))
    console.print(
        f"{sum(function.own for function in found) / samples:.0%} of a core in all. `own` is what the function "
        "took itself, `total` with all that it called.",
        style="dim",
        soft_wrap=True,
    )


def _table(found: Sequence[Function], samples: int) -> Table:
    table = Table("own", "total", "function", "file", box=None)
    for one in found:
        table.add_row(f"{one.own / samples:.1%}", f"{one.total / samples:.1%}", one.name, one.file)
    return table
