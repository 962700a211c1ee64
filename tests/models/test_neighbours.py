"""Engines that compute on the same cores know of each other, and only while they do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from models import neighbours, restraint
from models.neighbours import Seat, busy_threads


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Seat]:
    seat = Seat(2, tmp_path)
    yield seat
    seat.leave()


def seats_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def test_nobody_is_its_own_neighbour(mine: Seat) -> None:
    assert busy_threads(mine.path) == 0


def test_those_count_who_are_busy(mine: Seat, tmp_path: Path) -> None:
    others = [Seat(3, tmp_path), Seat(4, tmp_path)]
    assert busy_threads(mine.path) == 7
    others[0].idle()
    assert busy_threads(mine.path) == 4
    others[0].busy()
    others[1].leave()
    assert busy_threads(mine.path) == 3
    others[0].leave()
    assert list(tmp_path.iterdir()) == [mine.path]
    others[0].busy()  # a user of an engine that has been closed meanwhile
    others[0].idle()


SITS = """
from pathlib import Path
from models.neighbours import Seat
seat = Seat(2, Path({folder!r}))
print("sat", flush=True)
input()
"""


def test_who_was_killed_is_no_neighbour_and_leaves_nothing(mine: Seat, tmp_path: Path) -> None:
    code = SITS.format(folder=str(tmp_path))
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"sat\n"
    assert busy_threads(mine.path) == 2
    other.kill()
    other.communicate()
    assert busy_threads(mine.path) == 0 and list(tmp_path.iterdir()) == [mine.path]


async def test_it_is_busy_while_it_is_used_and_a_moment_longer(
    mine: Seat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "IDLE_AFTER_S", 0.0)
    other = Seat(2, tmp_path)
    other.idle_soon()
    await asyncio.sleep(0.01)
    assert busy_threads(mine.path) == 0
    with other.used():
        with other.used():
            pass
        await asyncio.sleep(0.01)
        assert busy_threads(mine.path) == 2  # one user is left
    assert busy_threads(mine.path) == 2
    await asyncio.sleep(0.01)
    assert busy_threads(mine.path) == 0
    other.leave()


async def test_who_is_expected_counts_until_it_has_a_seat_of_its_own(
    mine: Seat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "EXPECTED_S", 0.05)
    neighbours.expect(tmp_path)
    assert busy_threads(mine.path) == 1
    await asyncio.sleep(0.1)
    assert busy_threads(mine.path) == 0 and seats_in(tmp_path) == [mine.path]


def test_cores_for_all_are_no_crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restraint, "cores", lambda: 4)
    seats = [Seat(2, tmp_path), Seat(2, tmp_path)]
    assert not restraint.crowded(seats[0].path)
    seats.append(Seat(1, tmp_path))
    assert restraint.crowded(seats[0].path)
    on_gpu = Seat(0, tmp_path)
    seats.pop().leave()
    assert not restraint.crowded(seats[0].path)
    for seat in (*seats, on_gpu):
        seat.leave()


TEAM = """
import psutil
from models.restraint import IdleTeam
before = psutil.Process().num_threads()
team = IdleTeam(5)
print(psutil.Process().num_threads() - before)
team.end()
for _ in range(1000):
    if psutil.Process().num_threads() == before:
        break
    __import__("time").sleep(0.01)
print(psutil.Process().num_threads() - before)
"""


def test_a_team_is_made_and_let_go() -> None:
    """By the libgomp that comes with torch, loaded as vLLM has it loaded into its engines."""
    spec = find_spec("torch")
    assert spec is not None and spec.origin is not None
    site = Path(spec.origin).parents[1]
    gomp = next(iter([*site.glob("torch.libs/libgomp*.so*"), *site.glob("torch/lib/libgomp*.so*")]))
    made = subprocess.run(
        [sys.executable, "-c", TEAM],
        env=os.environ | {"LD_PRELOAD": str(gomp)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert made.stdout.split() == ["5", "0"], made.stderr
