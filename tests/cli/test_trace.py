"""The tree of a trace, as a person reads it."""

from __future__ import annotations

from rich.console import Console

from flotilla.cli.trace import draw
from flotilla.core.tracing import Span


def test_spans_stand_under_their_parents_in_the_order_of_their_beginnings() -> None:
    actor = {"actor": "t/session/s_1"}
    spans = [
        Span(trace="f" * 32, id="2", parent="1", name="record", began=10.002, took_ms=1.0, about=actor),
        Span(
            trace="f" * 32, id="3", parent="1", name="work Retrieve", began=10.001, took_ms=9.0, about=actor
        ),
        Span(trace="f" * 32, id="1", parent="0", name="Post", began=10.0, took_ms=3.0, outcome="refused"),
    ]
    console = Console(width=200, no_color=True)
    with console.capture() as shown:
        console.print(draw(spans))
    first, *rest = shown.get().splitlines()
    assert first == f"trace {'f' * 32}"
    assert [line.lstrip("│├└─ ").split("  ")[:3] for line in rest] == [
        ["Post", "+0.0 ms", "3.0 ms"],
        ["work Retrieve", "+1.0 ms", "9.0 ms"],
        ["record", "+2.0 ms", "1.0 ms"],
    ]
    assert "refused" in rest[0] and "session/s_1" in rest[1]
