"""`flotilla simulate`: plays schedules of the simulator."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer


def simulate(
    seed: Annotated[int, typer.Option(help="The schedule, or the first of many.")] = 0,
    trace: Annotated[bool, typer.Option(help="One line for each thing that happens.")] = True,
    schedules: Annotated[int, typer.Option(help="So many, on all cores.")] = 1,
    planted: Annotated[str, typer.Option(help="A bug to be caught, by its name.")] = "",
    models: Annotated[bool, typer.Option(help="With models and their swaps.")] = False,
) -> None:
    """Play a schedule of faults from its seed: the same seed, the same trace."""
    command = [sys.executable, "-m", "simulation", f"--seed={seed}", f"--schedules={schedules}"]
    command += ["--models"] * models + ["--trace"] * trace + [f"--planted={planted}"] * bool(planted)
    raise typer.Exit(subprocess.run(command, check=False).returncode)
