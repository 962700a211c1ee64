"""Frames on their way: text isn't looked into, and what is of the moment is known for what it is."""

from __future__ import annotations

from flotilla.views import events


def test_figures_of_the_moment_are_no_text_and_not_for_visitors() -> None:
    figures = events.parse_frame(events.live_frame(7, "swap.figures", {"replies": 3}))
    assert (figures.seq, figures.length, events.type_of(figures)) == (7, 0, "swap.figures")
    assert events.type_of(figures) in events.NOT_FOR_VISITORS
    delta = events.parse_frame(events.delta_frame(7, "t-1", 0, "Hello"))
    assert events.type_of(delta) == "reply.delta"
