"""Four hundred schedules on every core, none of which breaks a promise. FLOTILLA_SCHEDULES changes how many,
FLOTILLA_SEED where they begin."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCHEDULES = int(os.environ.get("FLOTILLA_SCHEDULES", "400"))
FIRST = int(os.environ.get("FLOTILLA_SEED", "0"))


@pytest.mark.timeout(1200)
def test_no_schedule_breaks_a_promise() -> None:
    command = [sys.executable, "-m", "simulation", "--seed", str(FIRST), "--schedules", str(SCHEDULES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert f"{SCHEDULES} schedules" in done.stdout


def test_a_failing_schedule_is_named_with_the_command_that_plays_it_again() -> None:
    command = [sys.executable, "-m", "simulation", "--schedules", "20", "--planted", "doubled-message"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if line.startswith("  flotilla simulate"))
    again = subprocess.run(
        [sys.executable, "-m", "flotilla.cli", *line.split()[1:]], capture_output=True, text=True, check=False
    )
    assert again.returncode == 1
    assert "doubled" in again.stdout
