"""Says each step on standard output, a JSON object a line, for whoever shows them to a person."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import msgspec

from flotilla.core.errors import FlotillaError


def say(step: str, state: str, detail: str = "", field: str = "") -> None:
    said = {"step": step, "state": state, "detail": detail, "field": field}
    print(msgspec.json.encode(said).decode(), flush=True)  # noqa: T201


@contextmanager
def step(name: str) -> Generator[None]:
    say(name, "begun")
    yield
    say(name, "done")


def told(act: Callable[[], object]) -> None:
    """Runs a whole command. What is wrong is its last line."""
    try:
        act()
    except FlotillaError as error:
        say("failed", "failed", f"{error.field}: {error}" if error.field else str(error), error.field or "")
        sys.exit(1)
