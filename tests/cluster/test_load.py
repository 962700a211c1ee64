"""The load fleet's miniature against a real fleet: two hundred conversations over every way in, and a storm."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from benchmarks.load import book, scenario
from benchmarks.load.conductor import Conductor, Where
from tests.fleet import TestFleet

# What a client sees and the fleet can't know: the way to the gateway and back, and the commit of the reply's end.
HOPS_SHARE_MAX = 0.05


async def test_every_way_in_holds_through_a_storm(
    fleet: TestFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "RUNS", tmp_path)
    mini = scenario.read("mini")
    where = Where(url=fleet.url, rpc=fleet.grpc, key="dev", local=fleet.local)
    conductor = Conductor(
        mini, where, seed=5, name="mini", command="pytest", console=Console(file=StringIO())
    )
    told = await conductor.run()

    found = (conductor.folder / "errors.jsonl").read_text()
    assert told["errors"] == {}, found
    assert told["measures"]["failed_turns"] == told["measures"]["lost"] == told["measures"]["shed"] == 0
    assert told["measures"]["storm_missing"] == 0
    assert told["measures"]["storm_sockets"] == 60
    turns = np.load(conductor.folder / "turns.npz")
    assert set(turns["outcome"]) == {0}
    assert set(turns["way"]) == {0, 1, 2, 3}
    assert len(turns["way"]) == 200
    assert abs(told["agreement"]["ratio"] - 1) < HOPS_SHARE_MAX, told["agreement"]
    seen = {process["name"] for process in _read(conductor.folder / "resources.json")}
    assert {"gateway", "host-0", "model", "valkey", "postgres", "haproxy", "raylet", "gcs"} <= seen
    assert told["measures"]["server_memory_mb"] > 100


def _read(file: Path) -> list[dict[str, object]]:
    return msgspec.json.decode(file.read_bytes())
