"""Spans in files: bounded, readable after a crash, never in the way of a turn."""

from __future__ import annotations

from pathlib import Path

from flotilla.core.tracing import Span
from flotilla.stores import traces
from flotilla.stores.traces import JsonlTracer


def span(n: int) -> Span:
    return Span(
        trace=f"{n:032x}", id=f"{n:016x}", name="Post", began=n, took_ms=1.5, about={"actor": "t/session/s"}
    )


def test_spans_are_read_as_they_were_written(tmp_path: Path) -> None:
    first, second = JsonlTracer(tmp_path / "logs", "host"), JsonlTracer(tmp_path / "logs", "gateway")
    for n, tracer in ((1, first), (2, second), (3, first)):
        tracer.write(span(n))
    assert sorted(traces.read(tmp_path / "logs"), key=lambda s: s.began) == [span(1), span(2), span(3)]


def test_a_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    JsonlTracer(tmp_path, "host").write(span(1))
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(b'{"trace": "0')
    assert list(traces.read(tmp_path)) == [span(1)]


def test_a_file_does_not_grow_without_bound_and_the_latest_stay(tmp_path: Path) -> None:
    tracer = JsonlTracer(tmp_path, "host", bytes_max=10_000)
    for n in range(1000):
        tracer.write(span(n))
    kept = [s.began for s in traces.read(tmp_path)]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000
    assert sorted(kept) == list(range(1000 - len(kept), 1000)) and len(kept) > 20


def test_files_of_processes_that_ended_go_when_there_are_many(tmp_path: Path) -> None:
    for n in range(traces.FILES_MAX + 10):
        (tmp_path / f"traces-host-x{n}.jsonl").write_text("")
    tracer = JsonlTracer(tmp_path, "host")
    tracer.write(span(1))
    assert len(list(tmp_path.iterdir())) == traces.FILES_MAX
    assert list(traces.read(tmp_path)) == [span(1)]


def test_a_folder_that_cannot_be_written_to_loses_spans_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    tracer = JsonlTracer(tmp_path / "logs", "host")
    tracer.write(span(1))
    assert tracer.lost == 1
