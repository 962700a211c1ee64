"""The same seed, the same trace: in this process, and in any other."""

from __future__ import annotations

import subprocess
import sys

import pytest

from simulation.run import run

SEEDS = range(50)


@pytest.mark.timeout(600)
def test_fifty_seeds_twice() -> None:
    first = [run(seed, tracing=True) for seed in SEEDS]
    assert all(len(outcome.trace) > 10 for outcome in first)
    for seed, outcome in zip(SEEDS, first, strict=True):
        assert run(seed, tracing=True) == outcome
    assert len({outcome.trace for outcome in first}) == len(SEEDS)


def test_worlds_with_models_too() -> None:
    for seed in range(4):
        assert run(seed, tracing=True, models=True) == run(seed, tracing=True, models=True)
        assert run(seed, models=False).steps < run(seed, models=True).steps


def test_tracing_changes_nothing() -> None:
    for seed in range(10):
        traced, plain = run(seed, tracing=True), run(seed)
        assert (plain.steps, plain.virtual_s, plain.violations) == (
            traced.steps,
            traced.virtual_s,
            traced.violations,
        )


@pytest.mark.timeout(600)
def test_another_process_sees_the_same() -> None:
    def digest(hashes: str) -> str:
        command = [sys.executable, "-m", "simulation", "--schedules", "25", "--digest"]
        return subprocess.run(
            command, env={"PYTHONHASHSEED": hashes}, capture_output=True, check=True, text=True
        ).stdout

    assert digest("1") == digest("random") != ""
