"""`python -m benchmarks.load run SCENARIO`, `list`."""

from __future__ import annotations

import argparse
import asyncio
import shlex
import signal
import sys
from datetime import UTC, datetime
from typing import get_args

from rich.console import Console
from rich.table import Table

from benchmarks.load import scenario as scenarios
from benchmarks.load.conductor import Conductor, Where, own_fleet
from benchmarks.load.scenario import Client, Scenario
from benchmarks.load.screen import verdicts
from benchmarks.load.worker import many_files
from benchmarks.load.workers import Broken
from flotilla.cli.local import Local
from flotilla.core.errors import FlotillaError, Misconfigured

MISSED, BROKEN = 1, 2
"""Exit codes: a target was missed or the run is not valid; there is no run."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description="Puts a fleet under load.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the scenarios")
    run = commands.add_parser("run", help="play one, and write down what came of it")
    run.add_argument("scenario", help="its name, or the path of a TOML file")
    run.add_argument("--url", default="", help="of a running fleet; without it one is started, and stopped")
    run.add_argument("--rpc", default="", metavar="HOST:PORT", help="of its gRPC")
    run.add_argument("--key", default="dev")
    run.add_argument("--seed", type=int, default=1, help="fixes the traffic")
    run.add_argument("--name", default="", help="of the run's folder; the scenario and the time if not given")
    run.add_argument("--processes", type=int, default=0, help="of the load fleet; as the scenario says")
    run.add_argument(
        "--client", choices=get_args(Client), default="", help="that plays; as the scenario says"
    )
    run.add_argument("--short", action="store_true", help="the same at a smaller size")
    return parser.parse_args()


def listed(console: Console) -> None:
    table = Table("scenario", "conversations", "turns/s", "about")
    for name in scenarios.names():
        scenario = scenarios.read(name)
        table.add_row(name, f"{scenario.conversations:,}", f"{scenario.turns_per_s:.4g}", scenario.about)
    console.print(table)


def chosen(options: argparse.Namespace) -> Scenario:
    scenario = scenarios.read(options.scenario)
    if options.short:
        scenario = scenarios.shortened(scenario)
    if options.processes:
        scenario = scenarios.with_processes(scenario, options.processes)
    if options.client:
        scenario = scenarios.with_client(scenario, options.client)
    return scenario


def where(options: argparse.Namespace, scenario: Scenario) -> Where:
    """A running fleet's processes are seen if it is the one of this machine's FLOTILLA_HOME."""
    if not options.url:
        return own_fleet(scenario, options.key)
    local, url = Local(), options.url.rstrip("/")
    here = local.run if local.run and local.run.address.rstrip("/") == url else None
    rpc = options.rpc or (here.grpc if here else "")
    if scenario.ways.grpc and not rpc:
        raise Misconfigured(
            "This scenario speaks gRPC.", field="--rpc", next="Give the HOST:PORT of its door."
        )
    return Where(url=url, rpc=rpc, key=options.key, local=local if here else None)


def run(options: argparse.Namespace, console: Console) -> int:
    """The exit code."""
    scenario = chosen(options)
    many_files(scenario.conversations)  # also for the fleet that is started here
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = options.name or f"{options.scenario.rpartition('/')[2].removesuffix('.toml')}-{stamp}"
    command = shlex.join(["python", "-m", "benchmarks.load", *sys.argv[1:]])
    fleet = where(options, scenario)
    conductor = Conductor(scenario, fleet, seed=options.seed, name=name, command=command, console=console)
    try:
        summed = asyncio.run(conductor.run())
    finally:
        if fleet.own is not None:
            fleet.own.down()
    verdicts(console, summed, summed["targets"])
    for reason in summed["invalid_because"]:
        console.print(f"NOT VALID. {reason}")
    for kind, count in summed["errors"].items():
        console.print(f"{count:6}  {kind}")
    console.print(f"{conductor.folder}")
    return 0 if summed["valid"] and all(target["met"] for target in summed["targets"]) else MISSED


def _ended(number: int, _: object) -> None:
    """What was started is stopped, also when this process is told to end."""
    sys.exit(128 + number)


def main() -> None:
    signal.signal(signal.SIGTERM, _ended)
    options, console = arguments(), Console(width=None if sys.stdout.isatty() else 200)
    try:
        if options.command == "list":
            return listed(console)
        sys.exit(run(options, console))
    except (FlotillaError, Broken, ConnectionError) as error:
        console.print(f"{error}", style="red", highlight=False)
        sys.exit(BROKEN)


if __name__ == "__main__":
    main()
