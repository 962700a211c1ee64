"""A replica that loads is nicer than those that answer, and is as they are once it answers itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from actors import quiet
from actors.cluster import Process, Recipe


@contextmanager
def a_child() -> Generator[psutil.Process]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def of_all(process: psutil.Process) -> set[int]:
    return {os.getpriority(os.PRIO_PROCESS, thread.id) for thread in process.threads()}


def test_the_process_its_threads_and_its_children_and_back() -> None:
    before, stop = os.getpriority(os.PRIO_PROCESS, 0), threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        with quiet.quiet(), a_child() as child:
            # One without the right to come back stays as it is.
            may = os.geteuid() == 0
            nicer = min(quiet.NICE_MAX, before + quiet.NICE) if may else before
            assert of_all(psutil.Process()) == of_all(child) == {nicer}
        assert of_all(psutil.Process()) == {before}
    finally:
        stop.set()
        other.join()


def test_what_was_started_meanwhile_comes_back_too() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with quiet.quiet():
        holding = a_child()
        child = holding.__enter__()
    try:
        assert of_all(child) == {before}
    finally:
        holding.__exit__(None, None, None)


def test_nothing_is_lowered_that_could_not_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    before, setpriority = os.getpriority(os.PRIO_PROCESS, 0), os.setpriority

    def lowering_only(which: int, who: int, nice: int) -> None:
        if nice < os.getpriority(which, who):
            raise PermissionError
        setpriority(which, who, nice)

    monkeypatch.setattr(os, "setpriority", lowering_only)
    with quiet.quiet():
        assert os.getpriority(os.PRIO_PROCESS, 0) == before


async def niceness(_: object) -> int:
    """In place of a wiring function."""
    return os.getpriority(os.PRIO_PROCESS, 0)


@pytest.mark.parametrize("gives_way", [True, False])
async def test_a_process_is_quiet_while_it_is_made_if_its_recipe_says_so(
    monkeypatch: pytest.MonkeyPatch, gives_way: bool
) -> None:
    monkeypatch.setattr("actors.cluster.calm_collector", lambda: None)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    process = Process.__new__(Process)
    process._recipe = Recipe(
        role="model", name="m", wire=f"{__name__}:niceness", settings=None, quiet=gives_way
    )
    made: Any = await process._wire()
    lowered = gives_way and os.geteuid() == 0
    assert made == (min(quiet.NICE_MAX, before + quiet.NICE) if lowered else before)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
