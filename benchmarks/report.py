"""What every benchmark says in the end: on which machine, what it measured, whether it met its target."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec
import psutil
from rich.console import Console
from rich.table import Table


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One figure. `spread` is (highest - lowest) / median over the rounds."""

    measure: str
    value: float
    unit: str
    better: Literal["lower", "higher"]
    target: float | None = None
    peer: str | None = None
    peer_value: float | None = None
    samples: int | None = None
    spread: float | None = None

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer."""
        if not self.peer_value or not self.value:
            return None
        return self.peer_value / self.value if self.better == "lower" else self.value / self.peer_value


def arguments(benchmark: str, about: str) -> argparse.ArgumentParser:
    """`--quick` and `--json`, which every benchmark takes."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}", description=about)
    parser.add_argument("--quick", action="store_true", help="the same question at a smaller size, in 60 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return parser


def report(benchmark: str, results: Sequence[Result], json: Path | None) -> None:
    """Prints the results, those that missed their target first, and writes them to `json`."""
    ordered = sorted(results, key=lambda result: result.met is not False)
    _print(benchmark, ordered)
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        content = msgspec.json.encode(_content(benchmark, ordered))
        json.write_bytes(msgspec.json.format(content, indent=1) + b"\n")


def _content(benchmark: str, results: Sequence[Result]) -> dict[str, object]:
    return {
        "benchmark": benchmark,
        "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "results": [_row(result) for result in results],
    }


def _row(result: Result) -> dict[str, object]:
    row: dict[str, object] = {**msgspec.to_builtins(result), "met": result.met, "ratio": result.ratio}
    return {name: value for name, value in row.items() if value is not None}


def machine() -> dict[str, object]:
    """The processor, its cores, the memory, and the version of Ray."""
    return {
        "cpu": _cpu(),
        "cores": psutil.cpu_count() or 0,
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "ray": _version("ray"),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _print(benchmark: str, results: Sequence[Result]) -> None:
    table = Table("measure", "value", "unit", "target", "", "peer", "spread", title=benchmark)
    for result in results:
        sign = "≤" if result.better == "lower" else "≥"
        table.add_row(
            result.measure,
            f"{result.value:,.4g}",
            result.unit,
            "" if result.target is None else f"{sign} {result.target:,.4g}",
            {True: "met", False: "MISSED", None: ""}[result.met],
            f"{result.peer} {result.peer_value:,.4g}" if result.peer and result.peer_value else "",
            "" if result.spread is None else f"{result.spread:.0%}",
        )
    Console(width=130).print(table)
