"""What is in a source of weights on this machine. The code that reads it is the models' own, in a process of
its own, as the command line stands below it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec

from flotilla.cli.screen import console
from flotilla.core.errors import FlotillaError, Problem, error_of


def is_local(source: str) -> bool:
    return bool(source) and ("://" not in source or source.startswith(("file://", "package:")))


def inspected(source: str) -> dict[str, Any]:
    """`Inspected` of models/inspection.py. Raises what is wrong with it."""
    command = [sys.executable, "-m", "models.sources", "inspect", source]
    with console.status(f"looking into {source}"):
        done = subprocess.run(command, capture_output=True, check=False)
    try:
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=dict[str, Any])
        raise error_of(msgspec.json.decode(done.stdout, type=Problem))
    except msgspec.DecodeError:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise FlotillaError(
            f"{source} can't be looked into: {said[-1] if said else 'no reason given'}."
        ) from None
