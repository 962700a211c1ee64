"""The code of the pages runs: the python blocks of a page, one after the other, are one module.

Its functions `test_…` are tests of ours; those with a `url` get the address of a small fleet. A block that is shown
and not run begins with ```python no-run.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.client.server import SmallFleet, serving

ROOT = Path(__file__).parents[2]
DOCS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))
PAGES = ("docs/kinds.md", "docs/agents.md", "docs/client.md", "docs/doors.md")


def code(page: str) -> str:
    """The blocks that are run, each at its own lines of the page, so that tracebacks tell the place."""
    running = False
    lines: list[str] = []
    for line in (ROOT / page).read_text().splitlines():
        fence = line.startswith("```")
        running = line == "```python" if fence else running
        lines.append(line if running and not fence else "")
    return "\n".join(lines)


@cache
def module(page: str) -> ModuleType:
    made = ModuleType(re.sub(r"\W", "_", page.removesuffix(".md")))
    made.__file__ = str(ROOT / page)
    sys.modules[made.__name__] = made  # where msgspec looks annotations up
    exec(compile(code(page), made.__file__, "exec"), vars(made))
    return made


def examples() -> list[tuple[str, str]]:
    found = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
    return [(page, name) for page in PAGES for name in found.findall(code(page))]


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("page", "name"), examples())
async def test_what_a_page_says_holds(page: str, name: str) -> None:
    test = getattr(module(page), name)
    if "url" in inspect.signature(test).parameters:
        async with serving(SmallFleet()) as url:
            await run(test, url)
    else:
        await run(test)


async def run(test: Callable[..., Any], *args: str) -> None:
    """One that isn't asynchronous has a thread of its own, as it would in a program without a loop."""
    if inspect.iscoroutinefunction(test):
        await test(*args)
    else:
        await asyncio.to_thread(test, *args)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_code_that_runs(page: str) -> None:
    assert code(page).strip() and module(page)


@pytest.mark.parametrize("page", ["docs/kinds.md", "README.md"])
def test_the_first_kind_is_the_one_that_a_fleet_can_host(page: str) -> None:
    """It is shown as it is in examples/counter.py."""
    shown = (ROOT / page).read_text().split("```python\n")[1].split("```")[0]
    assert shown.strip() in (ROOT / "examples/counter.py").read_text()


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", *DOCS])
def test_links_within_the_repository_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
