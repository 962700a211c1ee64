"""A simulated process: what runs in it, and whether it runs at all."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable
from typing import Any

Ending = Callable[[], None]


class Handle:
    """A callback that waits for its turn or its time. Has what asyncio asks of its own handles."""

    __slots__ = ("_cancelled", "args", "callback", "context", "process", "time")

    def __init__(
        self,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context,
        process: Process,
        time: float = 0.0,
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.process = process
        self.time = time
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self.callback, self.args = _nothing, ()

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self.time


def _nothing() -> None:
    pass


class Process:
    """A scope: whatever is started in it belongs to it, and stops for good when it is killed.

    `name` outlives restarts; each life is a `Process` of its own. `alive` turns false for ever,
    `paused` (SIGSTOP) goes and comes: what was due in between then runs at once.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.wall_shift_s = 0.0
        self.ready: deque[Handle] = deque()
        self.listed = False
        self.endings: dict[Ending, None] = {}  # what its kernel does when it is killed
        self.context = contextvars.copy_context()
        self.context.run(CURRENT.set, self)

    def __repr__(self) -> str:
        state = "dead" if not self.alive else "paused" if self.paused else "running"
        return f"<Process {self.name}: {state}>"

    @property
    def runnable(self) -> bool:
        return self.alive and not self.paused and bool(self.ready)


CURRENT: contextvars.ContextVar[Process] = contextvars.ContextVar("process")
