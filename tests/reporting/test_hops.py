"""Hops are measured by themselves, and their processor time is charged to the process that spent it."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from benchmarks.hops import inside
from benchmarks.hops.__main__ import passed, results
from benchmarks.hops.measuring import Hop, Meter, timed

SPINS = "print('spins', flush=True)\nwhile True: pass"
WAITS = "import threading\nprint('waits', flush=True)\nthreading.Event().wait()"


def hop(name: str, ms: float, times: int = 0) -> Hop:
    return Hop(name=name, about="", ms=[ms], passed=times)


HOPS = [
    *(hop("link ask", 0.1, 2), hop("journal append", 1.0, 2), hop("journal append, 64 others", 9.0)),
    *(hop("retrieval", 3.0), hop("first token, chat", 2.5), hop("first token, bank", 6.0)),
]


def test_a_turn_passes_each_hop_as_often_as_it_does() -> None:
    assert passed(HOPS, "chat") == {"2 × link ask": 0.2, "2 × journal append": 2.0}
    assert sum(passed(HOPS, "bank").values()) == pytest.approx(5.2)


def test_the_sums_stand_beside_the_first_tokens() -> None:
    rows = {row.measure: row for row in results(HOPS)}
    assert rows["sum_of_hops_chat_ms"].peer_value == 2.5 and rows["sum_of_hops_bank_ms"].value == 5.2
    assert rows["first_token_chat_p50_ms"].met is True
    assert "journal_append_64_others_p95_ms" in rows


def test_processor_time_is_charged_to_whoever_spent_it() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", SPINS], stdout=subprocess.PIPE) as busy,
        subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE) as idle,
    ):
        try:
            for process in (busy, idle):
                assert process.stdout is not None and process.stdout.readline()
            # Both are children of this process, and have names: they are not charged to it as well.
            both = {"busy": busy.pid, "idle": idle.pid, "parent": psutil.Process().pid}
            meter = Meter(lambda: {name: psutil.Process(pid) for name, pid in both.items()}, idle_s=0)
            spinner = psutil.Process(busy.pid)
            until = spinner.cpu_times().user + 0.3
            while spinner.cpu_times().user < until:
                spinner.is_running()
            used = meter.each(1000)
        finally:
            busy.kill()
            idle.kill()
    assert used["busy"] >= 250 and "idle" not in used


def test_what_runs_all_the_time_is_taken_off() -> None:
    with subprocess.Popen([sys.executable, "-c", SPINS], stdout=subprocess.PIPE) as busy:
        try:
            assert busy.stdout is not None and busy.stdout.readline()
            spinner = psutil.Process(busy.pid)
            used = Meter(lambda: {"busy": spinner}, idle_s=0.5).each(1)
        finally:
            busy.kill()
    assert used.get("busy", 0.0) < 250_000  # of the half second of its idling


async def test_each_hop_inside_is_there_with_its_times() -> None:
    found = [await inside.link(50), await inside.mailbox(50), await inside.hot_log(50)]
    assert [one.name for one in found] == ["link ask", "mailbox", "hot-log append"]
    for one in found:
        assert len(one.ms) == 50 and 0 < one.percentile(50) <= one.percentile(95)


async def test_every_operation_is_timed() -> None:
    done: list[int] = []

    async def operation() -> None:
        done.append(1)

    assert len(await timed(operation, 7)) == len(done) == 7
