"""A gateway that goes away: who holds something open there is told before it does."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager


class Going:
    """Who is to be told, and whether they were."""

    def __init__(self) -> None:
        self.begun = False
        self._told: dict[int, Callable[[], object]] = {}
        self._last = 0

    @contextmanager
    def told(self, go: Callable[[], object]) -> Generator[None]:
        """Calls `go` when the gateway begins to go, as long as this is open; at once if it has begun."""
        self._last += 1
        id, self._told[self._last] = self._last, go
        if self.begun:
            go()
        try:
            yield
        finally:
            del self._told[id]

    def begin(self) -> None:
        self.begun = True
        for go in list(self._told.values()):
            go()
