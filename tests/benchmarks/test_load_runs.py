"""A run from its beginning to its end, against the server that only plays the wire: no fleet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from benchmarks.load import book
from benchmarks.load.conductor import Conductor, Where
from benchmarks.load.scenario import CatchUp, Client, Every, Knee, Ramp, Scenario, Slo, Steady, Storm, Ways
from benchmarks.load.workers import Broken

TOKENS, WORD = 5, " word."
CLIENTS: tuple[Client, ...] = ("lean", "library")


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    command = (sys.executable, "-m", "benchmarks.load.echo", "--tokens", str(TOKENS), "--token-s", "0.02")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=book.ROOT) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.terminate()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "RUNS", tmp_path)


async def played(url: str, scenario: Scenario) -> tuple[dict[str, Any], Path]:
    where = Where(url=url, rpc="", key="dev")
    console = Console(file=StringIO())
    conductor = Conductor(scenario, where, seed=3, name="try", command="pytest", console=console)
    return await conductor.run(), conductor.folder


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_way_but_grpc_in_two_processes(echo: str, client: Client) -> None:
    scenario = Scenario(
        about="",
        conversations=30,
        ways=Ways(websocket=0.5, sse=0.3, http=0.2),
        traffic=Every(seconds=1),
        phases=(Ramp(per_s=300, rest_s=0.1), Steady(seconds=2)),
        checked=1.0,
        processes=2,
        client=client,
    )
    told, folder = await played(echo, scenario)
    assert told["errors"] == {}, (folder / "errors.jsonl").read_text()
    assert told["measures"]["completed"] == told["measures"]["turns"] == 60
    assert told["generator"]["client"] == told["scenario"]["client"] == client
    assert told["agreement"]["ratio"] == pytest.approx(1.0, abs=0.5)
    turns = np.load(folder / "turns.npz")
    assert sorted(set(turns["way"])) == [0, 1, 2]
    assert set(turns["characters"]) == {len(WORD) * TOKENS}
    assert set(turns["deltas"][turns["way"] != 2]) == {TOKENS}
    assert list(turns["intended_s"]) == sorted(turns["intended_s"])
    assert msgspec.json.decode((folder / "run.json").read_bytes())["phases"][1]["name"] == "steady"
    marks = [msgspec.json.decode(line) for line in (folder / "marks.jsonl").read_bytes().splitlines()]
    assert [mark["text"] for mark in marks if mark["kind"] == "phase"] == ["ramp", "steady"]
    legend = msgspec.json.decode((folder / "resources.json").read_bytes())
    assert [process["name"] for process in legend] == ["generator-0", "generator-1", "conductor"]


@pytest.mark.parametrize(
    ("client", "counted"), [("lean", "closed without a code"), ("library", "tried again: unavailable")]
)
async def test_a_storm_in_the_middle_of_replies_loses_nothing(
    echo: str, client: Client, counted: str
) -> None:
    scenario = Scenario(
        about="",
        conversations=20,
        traffic=Every(seconds=0.5),
        phases=(Ramp(per_s=200, rest_s=0.1), Storm(seconds=4)),
        checked=1.0,
        client=client,
    )
    told, folder = await played(echo, scenario)
    assert told["errors"] == {}, (folder / "errors.jsonl").read_text()
    assert told["measures"]["storm_sockets"] == 20
    assert told["measures"]["storm_missing"] == told["measures"]["lost"] == 0
    assert 0 < told["measures"]["storm_recovered_s"] < 4
    assert told["counts"][counted] == 20


async def test_catching_up_and_the_knee(echo: str) -> None:
    """No first token comes within a microsecond: the first step breaks that SLO, and nothing else."""
    scenario = Scenario(
        about="",
        conversations=10,
        traffic=Every(seconds=1),
        slo=Slo(first_ms=0.001),
        phases=(Ramp(), CatchUp(sessions=1, events=50, times=3), Knee(step_s=1, steps=5)),
    )
    told, folder = await played(echo, scenario)
    assert told["errors"] == {}, (folder / "errors.jsonl").read_text()
    assert told["measures"]["catch_up_1000_p99_ms"] > 0
    assert "knee_turns_per_s" not in told["measures"]
    lines = (folder / "marks.jsonl").read_bytes().splitlines()
    knees = [mark for mark in map(msgspec.json.decode, lines) if mark["kind"] == "knee"]
    assert len(knees) == 1
    assert "10.0 turns/s: 0.0 good" in knees[0]["text"]


async def test_a_fleet_that_is_not_there() -> None:
    scenario = Scenario(about="", conversations=2, phases=(Ramp(),))
    with pytest.raises(Broken, match=r"127\.0\.0\.1"):
        await played("http://127.0.0.1:1", scenario)
