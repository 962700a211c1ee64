"""Scenarios are files: all of ours can be read, and what is wrong in one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load import scenario as scenarios
from benchmarks.load.__main__ import arguments, chosen
from benchmarks.load.actions import ACTIONS, checked
from benchmarks.load.measures import of_turns
from benchmarks.load.notes import Notes
from benchmarks.load.scenario import Rate, Steady, Storm
from flotilla.core.errors import Misconfigured

RAMP = 'about = "-"\nconversations = 10\n[[phases]]\nkind = "ramp"\n'
# Figures of a run that are not of its turns alone.
OF_RUNS = {
    "errors", "gaps", "doubled", "bytes_per_open_socket", "server_memory_mb", "timing_disagreement",
    "storm_recovered_s", "catch_up_1000_p99_ms", "goodput_over_knee",
}  # fmt: skip


@pytest.mark.parametrize("name", scenarios.names())
def test_a_shipped_scenario_asks_for_what_there_is(name: str) -> None:
    scenario = scenarios.read(name)
    known = OF_RUNS | of_turns(Notes(0.0).turns(), 1.0, 100.0).keys()
    assert {target.measure for target in scenario.targets} <= known
    assert {action.do for phase in scenario.phases for action in phase.actions} <= ACTIONS.keys()
    assert scenario.turns_per_s > 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (RAMP + "loudness = 3", "loudness"),
        (RAMP.replace("10", "0"), "conversations"),
        ('client = "browser"\n' + RAMP, "client"),
        (RAMP.replace("ramp", "dance"), "dance"),
        (RAMP + "[ways]\nsse = 0.0", "way in"),
        (RAMP.replace("ramp", "storm") + "seconds = 3", "ramp"),
        (RAMP + '[[phases]]\nkind = "steady"\nseconds = 3\nknees = 3.0', "knee"),
        (RAMP + '[[targets]]\nmeasure = "errors"\ntarget = 0\nphase = "dance"', "dance"),
        (RAMP + "[[", "load.toml"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "load.toml"
    file.write_text(text)
    with pytest.raises(Misconfigured, match=named):
        scenarios.read(str(file))


def test_an_unknown_scenario_names_the_known() -> None:
    with pytest.raises(Misconfigured) as refused:
        scenarios.read("nothing")
    assert "sockets" in str(refused.value)


def test_a_short_one_has_the_same_shape() -> None:
    knee = scenarios.read("knee")
    short = scenarios.shortened(knee)
    assert [phase.title for phase in short.phases] == [phase.title for phase in knee.phases]
    assert isinstance(knee.traffic, Rate)
    assert isinstance(short.traffic, Rate)
    rates = knee.traffic.turns_per_s / knee.conversations, short.traffic.turns_per_s / short.conversations
    assert rates[0] == pytest.approx(rates[1])
    assert all(phase.seconds <= short.short.seconds for phase in short.phases if isinstance(phase, Steady))


def test_a_short_storm_cuts_the_same_share() -> None:
    mini = scenarios.read("mini")
    (storm,) = (phase for phase in mini.phases if isinstance(phase, Storm))
    (short,) = (phase for phase in scenarios.shortened(mini).phases if isinstance(phase, Storm))
    share = min(1.0, mini.short.conversations / mini.conversations)
    assert short.sockets == round(storm.sockets * share)


def test_whose_conversations_they_are_is_said_by_the_file_or_by_whoever_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "load.toml"
    file.write_text('client = "library"\n' + RAMP)
    words = {
        "mini": "lean",
        str(file): "library",
        f"{file} --client=lean": "lean",
        "mini --client=library": "library",
    }
    for said, client in words.items():
        monkeypatch.setattr("sys.argv", ["load", "run", *said.split()])
        assert chosen(arguments()).client == client


def test_nothing_is_done_to_a_fleet_of_others() -> None:
    with pytest.raises(Misconfigured, match="of the load test's own"):
        checked(["host killed"], None)
    with pytest.raises(Misconfigured, match="no action"):
        checked(["host tickled"], None)
