"""Who is about to compute on a machine is announced there, before its process is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.cluster import RayReplicas
from flotilla.core.versions import Placed, Version
from models import neighbours
from serve import recipes
from serve.processes.controller import Replicas
from tests.serve.conftest import SETTINGS

PLACED = Placed(version=Version(model="m", name="1", engine="scripted"), least=1, most=1)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many threads its neighbours saw as each process was started."""
    found: list[int] = []

    async def start(self: RayReplicas, name: str, placed: Placed) -> None:
        found.append(neighbours.busy_threads(neighbours.FOLDER / f"0-0-{name}"))

    monkeypatch.setattr(RayReplicas, "start", start)
    return found


def replicas() -> Replicas:
    return Replicas(lambda name, placed: recipes.replica(SETTINGS, name, placed))


async def test_the_neighbours_know_first(
    started: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(neighbours, "FOLDER", tmp_path)
    await replicas().start("m@1.1", PLACED)
    assert started == [1]


async def test_where_they_can_not_be_told_it_starts_all_the_same(
    started: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(neighbours, "FOLDER", tmp_path / "file" / "folder")
    monkeypatch.setattr(neighbours, "busy_threads", lambda _: 0)
    await replicas().start("m@1.1", PLACED)
    assert started == [0]
