"""`flotilla status`: what runs, what it says, what it weighs."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
from rich.table import Table

from flotilla.cli.client import Client
from flotilla.cli.local import Local
from flotilla.cli.screen import console
from flotilla.core.errors import FlotillaError


def status() -> None:
    """Show every dependency of the fleet, and every process with its memory."""
    _show_dependencies(Client())
    if "FLOTILLA_URL" not in os.environ:
        _show_processes(local := Local())
        if local.run and local.run.grpc:
            console.print(f"gRPC: {local.run.grpc}")


def _show_dependencies(client: Client) -> None:
    try:
        answer = client.ready()
    except FlotillaError as error:
        console.print(f"[red]down[/]  {error}", soft_wrap=True)
        return
    for name, said in answer["dependencies"].items():
        colour = "green" if said == "ok" else "red"
        console.print(f"[{colour}]{said:<4}[/]  {name}", soft_wrap=True)


def _show_processes(local: Local) -> None:
    rows = [(*memory_of(process), process) for process in local.processes()]
    for name, pid in local.servers().items():
        total = [memory_of(p) for p in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]
        rows.append((name, sum(size for _, size in total), psutil.Process(pid)))
    table = Table("process", "pid", "memory (PSS, MB)", box=None)
    for name, size, process in sorted(rows, key=lambda row: -row[1]):
        table.add_row(name, str(process.pid), f"{size / 1e6:.0f}")
    table.add_row("all", "", f"{sum(size for _, size, _ in rows) / 1e6:.0f}", style="bold")
    console.print(table)


def memory_of(process: psutil.Process) -> tuple[str, int]:
    """Name and proportional set size in bytes: shared pages count once over all processes (proc(5))."""
    try:
        words = process.cmdline()
        return _name(words), process.memory_full_info().pss
    except (psutil.Error, OSError):
        return "gone", 0


def _name(words: list[str]) -> str:
    """A short name: Ray's own for its workers, else the program's."""
    first = words[0] if words else "?"
    if first.startswith("ray::"):
        return first.split(".")[0]
    script = next((word for word in words[1:] if word.endswith(".py") or word == "-m"), None)
    if script == "-m":
        return words[words.index("-m") + 1]
    return Path(script or first).name
