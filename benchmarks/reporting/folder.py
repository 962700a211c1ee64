"""Reads the folder of a run, as the load fleet writes it (docs/report.md lists its files).

Times are seconds since the run's start, NaN for what did not happen; latencies count from `intended_s`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from flotilla.core.errors import Misconfigured, NotFound

RUNS = Path(__file__).parents[1] / "out" / "runs"
COMPLETED, SHED, ERROR, UNFINISHED, INTERRUPTED = range(5)
OUTCOMES = ("completed", "shed", "error", "not finished", "interrupted")
WAYS = ("WebSocket", "SSE", "HTTP", "gRPC")
HOPS = ("queued", "retrieval", "prompt", "first_token", "generation", "total", "overhead")
TURN_COLUMNS = (
    *("intended_s", "sent_s", "accepted_s", "first_s", "end_s"),
    *("characters", "deltas", "gap_max_ms", "outcome", "way", "phase"),
    *HOPS,
)
GAP_COLUMNS = ("at_s", "gap_ms")
RESOURCE_COLUMNS = ("at_s", "process", "cpu_share", "pss_bytes", "sockets")
SLO_FIRST_MS = 250.0
"""Where the scenario names none."""

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, npt.NDArray[Any]]
T = TypeVar("T")


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A phase of the scenario."""

    name: str
    from_s: float
    to_s: float


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    measure: str
    value: float | None
    unit: str
    target: float
    better: Literal["lower", "higher"]
    met: bool


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    p50: float | None = None
    p99: float | None = None
    max: float | None = None


class Generator(msgspec.Struct, frozen=True, kw_only=True):
    processes: int
    lag_ms: Lag = Lag()
    cpu_share_max: float | None = None
    client: str = ""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json`."""

    name: str
    seconds: float
    valid: bool
    scenario: dict[str, Any] = {}
    seed: int | str | None = None
    command: str = ""
    started_at: str = ""
    machine: dict[str, Any] = {}
    commit: str = ""
    phases: tuple[Span, ...] = ()
    invalid_because: tuple[str, ...] = ()
    generator: Generator | None = None
    targets: tuple[Verdict, ...] = ()
    errors: dict[str, int] = {}
    agreement: dict[str, float | None] = {}


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    at_s: float
    kind: str
    text: str = ""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    at_s: float
    type: str
    detail: str = ""


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """A process whose resources were watched."""

    name: str
    server: bool = True


class Run(msgspec.Struct, frozen=True, kw_only=True):
    folder: Path
    about: About
    turns: Columns
    gaps: Columns
    marks: tuple[Mark, ...]
    failures: tuple[Failure, ...]
    resources: Columns
    processes: tuple[Named, ...]

    @property
    def seconds(self) -> float:
        """Until the last thing that was seen, which may be after the last phase."""
        seen = [self.about.seconds, *(span.to_s for span in self.about.phases)]
        return float(max(seen))

    @property
    def slo_first_ms(self) -> float:
        slo: Any = self.about.scenario.get("slo") or {}
        return float(slo.get("first_ms", SLO_FIRST_MS))


def read(run: str | Path) -> Run:
    """A run by its folder or by its name. Raises `NotFound`, or `Misconfigured` naming the file at fault."""
    folder = _folder(Path(run))
    return Run(
        folder=folder,
        about=_json(folder / "run.json", About),
        turns=_columns(folder / "turns.npz", TURN_COLUMNS),
        gaps=_columns(folder / "gaps.npz", GAP_COLUMNS),
        marks=tuple(_lines(folder / "marks.jsonl", Mark)),
        failures=tuple(_lines(folder / "errors.jsonl", Failure)),
        resources=_columns(folder / "resources.npz", RESOURCE_COLUMNS),
        processes=_processes(folder / "resources.json"),
    )


def _folder(run: Path) -> Path:
    for folder in (run, RUNS / run):
        if (folder / "run.json").is_file():
            return folder
    known = sorted(path.parent.name for path in RUNS.glob("*/run.json"))
    raise NotFound(
        f"There is no run {str(run)!r}: neither it nor {RUNS / run} holds a run.json.",
        field="RUN",
        next=f"Known: {', '.join(known)}." if known else "Make one with `flotilla bench run SCENARIO`.",
    )


def _json(path: Path, type: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type)
    except (OSError, msgspec.DecodeError) as error:
        raise _unreadable(path, error) from None


def _lines(path: Path, type: type[T]) -> Sequence[T]:
    """Nothing happened if there is no file."""
    if not path.exists():
        return ()
    try:
        return msgspec.json.Decoder(type).decode_lines(path.read_bytes())
    except msgspec.DecodeError as error:
        raise _unreadable(path, error) from None


def _columns(path: Path, names: Sequence[str]) -> Columns:
    try:
        with np.load(path) as file:
            columns = {name: file[name] for name in names}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from None
    if len({len(column) for column in columns.values()}) > 1:
        raise _unreadable(path, ValueError("its columns are not of one length"))
    return columns


def _processes(path: Path) -> tuple[Named, ...]:
    """A list by index, or names by index: both are read."""
    found: Any = _json(path, object)
    if isinstance(found, dict):
        found = found.get("processes", [found[key] for key in sorted(found, key=int)])
    try:
        return tuple(
            Named(name=one) if isinstance(one, str) else msgspec.convert(one, Named) for one in found
        )
    except msgspec.ValidationError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> Misconfigured:
    return Misconfigured(
        f"{path} can't be read: {error}",
        field=path.name,
        next="Run the scenario again; docs/report.md says what the file must hold.",
    )
