"""`flotilla trace`: what was done because of one message, as a tree with its times."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.markup import escape
from rich.tree import Tree

from flotilla.cli.local import Local
from flotilla.cli.screen import console
from flotilla.core.errors import NotFound
from flotilla.core.tracing import Span
from flotilla.stores import traces

_TRACE_ID = re.compile(r"[0-9a-f]{32}")


def trace(
    what: Annotated[str, typer.Argument(metavar="SESSION|TRACE", help="A session's id, or a trace's.")],
    limit: Annotated[int, typer.Option(help="At most so many traces of a session, the latest.")] = 5,
) -> None:
    """Show the traces of a session, or one trace, as trees: who did what, when, for how long."""
    folder = Local().logs
    wanted = [what] if _TRACE_ID.fullmatch(what) else _traces_of(traces.read(folder), what)[-limit:]
    found: dict[str, list[Span]] = {}
    for span in traces.read(folder):
        if span.trace in wanted:
            found.setdefault(span.trace, []).append(span)
    if not found:
        raise NotFound(
            f"{folder} has no trace of {what!r}.",
            next="FLOTILLA_TRACE_SHARE of the turns are traced, and all that come with a `traceparent`.",
        )
    for id in wanted:
        console.print(draw(found[id]), soft_wrap=True)


def _traces_of(spans: Iterable[Span], session: str) -> list[str]:
    """Those in which an actor of that name had a part, by when they began."""
    began: dict[str, float] = {}
    for span in spans:
        if str(span.about.get("actor", "")).endswith(f"/{session}"):
            began[span.trace] = min(span.began, began.get(span.trace, span.began))
    return sorted(began, key=lambda id: began[id])


def draw(spans: list[Span]) -> Tree:
    """The spans of one trace. One whose parent is not there, as with a caller's own, is at the top."""
    ids = {span.id for span in spans}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span.began):
        children[span.parent if span.parent in ids else ""].append(span)
    start = min(span.began for span in spans)
    tree = Tree(f"trace [bold]{spans[0].trace}[/]")
    _grow(tree, children, "", start)
    return tree


def _grow(tree: Tree, children: dict[str, list[Span]], parent: str, start: float) -> None:
    for span in children[parent]:
        _grow(tree.add(_line(span, start)), children, span.id, start)


def _line(span: Span, start: float) -> str:
    about = "  ".join(f"{name}={value}" for name, value in span.about.items() if name != "actor")
    actor = str(span.about.get("actor", "")).partition("/")[2]
    outcome = "" if span.outcome == "ok" else f"  [red]{escape(span.outcome)}[/]"
    times = f"[dim]+{(span.began - start) * 1000:.1f} ms[/]  {span.took_ms:.1f} ms"
    return f"[bold]{escape(span.name)}[/]  {times}  {escape(actor)}{outcome}  [dim]{escape(about)}[/]"
