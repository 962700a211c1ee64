"""Stacks become a table, a real process is really watched, and whoever may not look is told what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flotilla.cli.processes import choose
from flotilla.cli.spying import RATE_PER_S, record
from flotilla.cli.stacks import Function, functions, read
from flotilla.core.errors import Misconfigured, NotFound, Refused, Unavailable

SPINS = "def spin():\n while True: sum(range(1000))\nprint('spins', flush=True)\nspin()"
WAITS = "import threading\nprint('waits', flush=True)\nthreading.Event().wait()"


def python(code: str) -> Iterator[psutil.Process]:
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        yield psutil.Process(process.pid)
        process.kill()


@pytest.fixture
def spinning() -> Iterator[psutil.Process]:
    yield from python(SPINS)


@pytest.fixture
def waiting() -> Iterator[psutil.Process]:
    yield from python(WAITS)


def test_time_is_a_functions_own_or_that_of_what_it_calls() -> None:
    stacks = read(
        "main (a.py:1);work (b.py:7) 3\nmain (a.py:2);work (b.py:9);work (b.py:9) 4\nmain (a.py:2) 1\n"
    )
    assert functions(stacks) == [
        Function(name="work", file="b.py", own=7, total=7),
        Function(name="main", file="a.py", own=1, total=8),
    ]


def test_frames_without_a_file_and_with_brackets_are_read() -> None:
    stacks = read("<module> (a.py:1);operator() (x) (lib.so);0x7f690c64524a 2")
    (stack,) = stacks
    assert stack == (("<module>", "a.py"), ("operator() (x)", "lib.so"), ("0x7f690c64524a", ""))


def test_a_process_at_work_is_caught_at_it(spinning: psutil.Process, tmp_path: Path) -> None:
    record(spinning.pid, "spinner", 1, tmp_path / "stacks.txt")
    (busiest, *_) = functions(read((tmp_path / "stacks.txt").read_text()))
    assert busiest.name == "spin" and busiest.own > RATE_PER_S * 0.2
    record(spinning.pid, "spinner", 1, tmp_path / "graph.svg")
    drawn = (tmp_path / "graph.svg").read_text()
    assert "<svg" in drawn and "spin" in drawn


def test_without_a_name_it_is_the_busiest(spinning: psutil.Process, waiting: psutil.Process) -> None:
    assert choose({"waiter": waiting, "spinner": spinning}, "") == ("spinner", spinning)


def test_the_beginning_of_a_name_will_do_if_it_is_the_only_one(spinning: psutil.Process) -> None:
    running = {"model:scripted@7": spinning, "host-0": spinning, "host-1": spinning}
    assert choose(running, "model")[0] == "model:scripted@7"
    with pytest.raises(NotFound, match="More than one") as several:
        choose(running, "host")
    assert several.value.next == "Name one of these: host-0, host-1."
    with pytest.raises(NotFound, match="No process") as none:
        choose(running, "nobody")
    assert none.value.field == "PROCESS"


def test_an_ending_without_a_format_is_refused(spinning: psutil.Process, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"x\.png") as refused:
        record(spinning.pid, "spinner", 1, tmp_path / "x.png")
    assert refused.value.field == "--out"


def test_what_runs_no_python_is_refused(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process, pytest.raises(Refused, match="no Python"):
        try:
            record(process.pid, "sleeper", 1, tmp_path / "x.txt")
        finally:
            process.kill()


def test_one_that_has_ended_is_said_to_be_gone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(Unavailable, match="could not watch"):
        record(process.pid, "gone", 1, tmp_path / "x.txt")


def test_who_may_not_look_is_told_how_to_be_allowed(spinning: psutil.Process, tmp_path: Path) -> None:
    """Root gives up the right to look first; anybody else may not look into process 1 anyhow."""
    pid = spinning.pid if os.getuid() == 0 else 1
    code = (
        "from pathlib import Path\nfrom flotilla.cli.spying import record\n"
        f"record({pid}, 'host-0', 1, Path({str(tmp_path / 'x.txt')!r}))"
    )
    drop = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"] if os.getuid() == 0 else []
    done = subprocess.run([*drop, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = done.stderr.splitlines()[-1]
    assert Misconfigured.__name__ in said and "host-0" in said and "--cap-add=SYS_PTRACE" in said
