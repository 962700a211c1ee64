"""What is seen while it runs: a line of figures in the terminal, kept in place; plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from benchmarks.load.orders import Tick

RECENT_S = 10
PLAIN_EVERY_S = 5.0


class Screen:
    """`tick` hears of every worker's last second."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._last: dict[int, Tick] = {}
        self._first: deque[tuple[float, list[float]]] = deque()
        self._turns: deque[tuple[float, int]] = deque()
        self._totals = {"completed": 0, "shed": 0, "errors": 0}
        self._live: Live | None = None
        self._plain_again = 0.0
        self.phase = ""

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=1, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def sockets(self) -> int:
        return sum(tick.open for tick in self._last.values())

    def tick(self, worker: int, tick: Tick) -> None:
        now = time.monotonic()
        self._last[worker] = tick
        self._first.append((now, tick.first_ms))
        self._turns.append((now, tick.completed))
        for window in (self._first, self._turns):
            while window and window[0][0] < now - RECENT_S:
                window.popleft()
        for name in self._totals:
            self._totals[name] += getattr(tick, name)
        self._show(now)

    def figures(self) -> dict[str, str]:
        """Of the last ten seconds, but for the totals."""
        seconds = max(1.0, self._turns[-1][0] - self._turns[0][0]) if self._turns else 1.0
        first = np.array([ms for _, part in self._first for ms in part])
        p50, p95, p99 = np.percentile(first, (50, 95, 99)) if len(first) else (0.0, 0.0, 0.0)
        lag_ms = max((tick.lag_ms for tick in self._last.values()), default=0.0)
        cpu = max((tick.cpu_share for tick in self._last.values()), default=0.0)
        return {
            "phase": self.phase,
            "sockets": f"{self.sockets:,}",
            "turns/s": f"{sum(n for _, n in self._turns) / seconds:,.1f}",
            "first token p50/p95/p99": f"{p50:.0f} / {p95:.0f} / {p99:.0f} ms",
            "completed": f"{self._totals['completed']:,}",
            "shed": f"{self._totals['shed']:,}",
            "errors": f"{self._totals['errors']:,}",
            "generator": f"{lag_ms:.0f} ms behind, {cpu:.0%} of a core",
        }

    def _show(self, now: float) -> None:
        figures = self.figures()
        if self._live is not None:
            table = Table(*figures, title=self._title)
            table.add_row(*figures.values())
            self._live.update(table)
        elif now >= self._plain_again:
            self._plain_again = now + PLAIN_EVERY_S
            self._console.print("  ".join(f"{name} {value}" for name, value in figures.items()))


def verdicts(console: Console, summed: dict[str, object], targets: Sequence[dict[str, object]]) -> None:
    """The end of a run, what missed its target first."""
    table = Table("measure", "value", "", "target", "", title=str(summed["name"]))
    for target in sorted(targets, key=lambda target: bool(target["met"])):
        sign = "≤" if target["better"] == "lower" else "≥"
        value = target["value"]
        shown = f"{value:,.4g}" if isinstance(value, float | int) else "not measured"
        table.add_row(
            str(target["measure"]), shown, str(target["unit"]),
            f"{sign} {target['target']:,.4g}", "met" if target["met"] else "MISSED",
        )  # fmt: skip
    console.print(table)
