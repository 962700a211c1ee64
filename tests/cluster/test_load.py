"""The load fleet's miniature against a real fleet: two hundred conversations over every way in, and a storm. Half of
them are the lean client's and half the client library's, at the same time."""

from __future__ import annotations

import asyncio
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from benchmarks.load import book, scenario
from benchmarks.load.conductor import Conductor, Where
from benchmarks.load.notes import COMPLETED, SHED
from benchmarks.load.scenario import Client, Scenario, Storm
from tests.fleet import TestFleet

# What a client sees and the fleet can't know: the way to the gateway and back, and the commit of the reply's end.
HOPS_SHARE_MAX = 0.05
# A machine that stalls for a moment is refused for, with `Retry-After`. The lean client takes no for an answer; the
# library says it again.
SHED_MAX = 10


async def test_every_way_in_holds_through_a_storm(
    fleet: TestFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "RUNS", tmp_path)
    where = Where(url=fleet.url, rpc=fleet.grpc, key="dev", local=fleet.local)
    runs = [_conductor(client, where) for client in ("lean", "library")]
    for conductor, told in zip(runs, await asyncio.gather(*(run.run() for run in runs)), strict=True):
        _held(conductor.folder, told, shed_max=SHED_MAX if told["generator"]["client"] == "lean" else 0)


def _conductor(client: Client, where: Where) -> Conductor:
    """The two of them make one `mini`."""
    half = scenario.with_client(_half(scenario.read("mini")), client)
    console = Console(file=StringIO())
    return Conductor(half, where, seed=5, name=f"mini-{client}", command="pytest", console=console)


def _half(whole: Scenario) -> Scenario:
    phases = tuple(
        msgspec.structs.replace(phase, sockets=phase.sockets // 2) if isinstance(phase, Storm) else phase
        for phase in whole.phases
    )
    return msgspec.structs.replace(whole, conversations=whole.conversations // 2, phases=phases)


def _held(folder: Path, told: dict[str, Any], *, shed_max: int) -> None:
    assert told["errors"] == {}, (folder / "errors.jsonl").read_text()
    assert told["measures"]["failed_turns"] == told["measures"]["lost"] == 0
    assert told["measures"]["shed"] <= shed_max
    assert told["measures"]["storm_missing"] == 0
    assert told["measures"]["storm_sockets"] == 30
    turns = np.load(folder / "turns.npz")
    assert set(turns["outcome"]) <= {COMPLETED, SHED}
    assert set(turns["way"]) == {0, 1, 2, 3}
    assert len(turns["way"]) == 100
    assert abs(told["agreement"]["ratio"] - 1) < HOPS_SHARE_MAX, told["agreement"]
    seen = {process["name"] for process in _read(folder / "resources.json")}
    assert {"gateway", "host-0", "model", "valkey", "postgres", "haproxy", "raylet", "gcs"} <= seen
    assert told["measures"]["server_memory_mb"] > 100


def _read(file: Path) -> list[dict[str, object]]:
    return msgspec.json.decode(file.read_bytes())
