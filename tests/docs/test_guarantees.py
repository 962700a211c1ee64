"""docs/guarantees.md says the limits and the errors as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import telling
from actors.residents import agent
from flotilla.core import calls, errors, flow, flow_run, wants
from flotilla.core.actor import KindLimits
from flotilla.core.errors import FlotillaError
from flotilla.core.limits import LIMITS
from flotilla.stores import postgres

PAGE = Path(__file__).parents[2] / "docs/guarantees.md"
PLACES: dict[str, Any] = {
    "LIMITS": LIMITS,
    "KindLimits": KindLimits(),
    "agent": agent,
    "calls": calls,
    "telling": telling,
    "flow": flow,
    "flow_run": flow_run,
    "postgres": postgres,
    "wants": wants,
}
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}


def rows(heading: str) -> list[list[str]]:
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def family(cls: type[FlotillaError]) -> Iterator[type[FlotillaError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from family(child)


def statuses() -> dict[str, int]:
    return {c.slug: c.status for c in family(FlotillaError) if c.__module__ == errors.__name__}


def test_every_error_is_there_with_its_status_and_next_move() -> None:
    said = {slug.strip("`"): int(status) for slug, status, _, _ in rows("Errors")}
    assert said == statuses()
    assert all(when and move for _, _, when, move in rows("Errors"))


@pytest.mark.parametrize("row", rows("Limits"), ids=lambda row: row[0])
def test_a_limit_has_the_value_that_the_page_says(row: list[str]) -> None:
    name, said, error = row
    found = re.match(r"`(\w+)\.(\w+)`", name)
    assert found
    number, _, unit = said.partition(" ")
    value = int(number.replace(",", "")) * UNITS.get(unit, 1)
    assert getattr(PLACES[found[1]], found[2]) == value
    assert error.strip("`") in statuses()
