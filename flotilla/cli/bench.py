"""`flotilla bench`: puts a fleet under load, and reports on it."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

app = typer.Typer(help="Load tests: run a scenario, look at what came of it.", no_args_is_help=True)

Scenario = Annotated[str, typer.Argument(help="A scenario's name, or the path of a TOML file.")]
RunName = Annotated[str, typer.Argument(help="The name of a run, or its folder.")]


@app.command()
def run(  # noqa: PLR0917
    scenario: Scenario,
    url: Annotated[
        str, typer.Option(help="Of a running fleet; without it one is started, and stopped.")
    ] = "",
    rpc: Annotated[str, typer.Option(help="HOST:PORT of its gRPC.")] = "",
    key: Annotated[str, typer.Option(help="An API key of it.")] = "dev",
    seed: Annotated[int, typer.Option(help="Fixes the traffic.")] = 1,
    name: Annotated[str, typer.Option(help="Of the run's folder.")] = "",
    processes: Annotated[int, typer.Option(help="Of the load fleet; 0 for as the scenario says.")] = 0,
    client: Annotated[str, typer.Option(help="That plays: lean, library; as the scenario says.")] = "",
    short: Annotated[bool, typer.Option("--short", help="The same at a smaller size.")] = False,
) -> None:
    """Play a scenario and write down what came of it."""
    words = [f"--url={url}"] * bool(url) + [f"--rpc={rpc}"] * bool(rpc) + [f"--name={name}"] * bool(name)
    words += [f"--client={client}"] * bool(client)
    numbers = [f"--key={key}", f"--seed={seed}", f"--processes={processes}"]
    _call("benchmarks.load", "run", scenario, *numbers, *words, *["--short"] * short)


@app.command("list")
def scenarios() -> None:
    """The scenarios."""
    _call("benchmarks.load", "list")


@app.command()
def compare(before: RunName, after: RunName) -> None:
    """What is better and what is worse in AFTER."""
    _call("benchmarks.reporting", "compare", before, after)


@app.command()
def report(
    run: RunName,
    baseline: Annotated[str, typer.Option(help="Another run to hold it against.")] = "",
    open_it: Annotated[bool, typer.Option("--open", help="In a browser.")] = False,
) -> None:
    """The page of a run: one self-contained HTML file in its folder."""
    _call("benchmarks.reporting", run, *[f"--baseline={baseline}"] * bool(baseline), *["--open"] * open_it)


def _call(module: str, *words: str) -> None:
    """The load fleet stands above the command line, which imports nothing of it."""
    raise typer.Exit(subprocess.run((sys.executable, "-m", module, *words), check=False).returncode)
