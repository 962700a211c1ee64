"""Recordings of what a Python process does, by py-spy, which looks into it from outside."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from flotilla.core.errors import FlotillaError, Misconfigured, Refused, Unavailable

FORMATS = {".svg": "flamegraph", ".json": "speedscope", ".txt": "raw"}
RATE_PER_S = 100
PATIENCE_S = 60.0
"""Beyond the recording itself: py-spy reads symbols first, and a loaded machine is slow."""
_DENIED = ("permission denied", "operation not permitted")
_NOT_PYTHON = ("failed to find python version", "failed to find a python interpreter")
_NOTHING = ("no stack counts", "samples: 0")


def record(pid: int, name: str, seconds: int, path: Path, flags: Sequence[str] = ()) -> None:
    """Writes what py-spy saw of the process to `path`, in the format of its ending.

    Raises `Misconfigured` where py-spy may not look or isn't there, `Refused` for another ending or a
    process without Python, `Unavailable` for a process that ended or did nothing.
    """
    options = [f"--pid={pid}", f"--duration={seconds}", f"--rate={RATE_PER_S}"]
    options += [f"--format={_format(path)}", f"--output={path}", *flags]
    path.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [_program(), "record", *options],
        capture_output=True,
        text=True,
        timeout=seconds + PATIENCE_S,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode or any(words in said.lower() for words in _NOTHING):
        raise _failed(name, said)


def denied(what: str) -> Misconfigured:
    return Misconfigured(
        f"py-spy may not look into {what}: the system doesn't permit ptrace.",
        next="Run it as the fleet's user or as root. As that user, allow it with `sudo sysctl "
        "kernel.yama.ptrace_scope=0`; in a container, start it with `--cap-add=SYS_PTRACE`.",
    )


def _format(path: Path) -> str:
    if path.suffix not in FORMATS:
        raise Refused(
            f"{path.name} has no ending that names a format.",
            field="--out",
            next="End its name in .svg (a flame graph), .json (speedscope) or .txt (one stack a line).",
        )
    return FORMATS[path.suffix]


def _program() -> str:
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise Misconfigured("py-spy is not installed.", next="Run `make setup`, or `pip install py-spy`.")
    return found


def _failed(name: str, said: str) -> FlotillaError:
    lowered = said.lower()
    if any(words in lowered for words in _DENIED):
        return denied(name)
    if any(words in lowered for words in _NOT_PYTHON):
        return Refused(
            f"{name} runs no Python.", field="PROCESS", next="Name a host, gateway, model or librarian."
        )
    if any(words in lowered for words in _NOTHING):
        return Unavailable(f"{name} did nothing meanwhile.", next="Put it under load, or watch it longer.")
    reason = next((line for line in said.splitlines() if line.strip()), "it said nothing")
    return Unavailable(f"py-spy could not watch {name}: {reason}", next="See that it still runs; try again.")
