"""Streams on their way in, as their caller sees them: items are pulled, or handed on as they come.

A caller that pulls waits in a task of its own. Ten thousand open sockets would be as many tasks that
do nothing but wait: they give the link a sink instead, which is called.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from flotilla.core.errors import FlotillaError
from flotilla.core.limits import LIMITS

CREDIT_EVERY = LIMITS.link_window_items // 4


class Sink(Protocol):
    """Must not wait, and says by `Tap.take` that it is done with what it got."""

    def item(self, body: bytes) -> None: ...

    def ended(self, error: FlotillaError | None) -> None:
        """Nothing more will come, and why if it is not the regular end."""
        ...


class Stream(Protocol):
    @property
    def over(self) -> bool: ...

    def put(self, item: bytes) -> bool:
        """False if the other end has sent more than it had credit for."""
        ...

    def end(self, error: FlotillaError | None = None) -> None: ...


class Pulled:
    """Items wait until somebody asks for them."""

    __slots__ = ("arrived", "error", "items", "over")

    def __init__(self) -> None:
        self.items: deque[bytes] = deque()
        self.arrived = asyncio.Event()
        self.over = False
        self.error: FlotillaError | None = None

    def put(self, item: bytes) -> bool:
        self.items.append(item)
        self.arrived.set()
        return len(self.items) <= LIMITS.link_window_items

    def end(self, error: FlotillaError | None = None) -> None:
        self.over, self.error = True, error
        self.arrived.set()


class Source(Protocol):
    """Where a tap's items come from."""

    def grant(self, stream: int, items: int) -> None: ...

    def untap(self, stream: int) -> None: ...


class Tap:
    """Items go to a sink. What it has not taken is held against the window, so a sink that can't hand on
    slows its own stream and nobody else's."""

    __slots__ = ("_owed", "_sink", "_source", "_stream", "_untaken", "over")

    def __init__(self, source: Source, stream: int, sink: Sink) -> None:
        self._source = source
        self._stream = stream
        self._sink = sink
        self._untaken = 0
        self._owed = 0
        self.over = False

    def put(self, item: bytes) -> bool:
        if self.over:
            return True
        self._untaken += 1
        try:
            self._sink.item(item)
        except Exception as error:  # a bug in one sink must not cost the link and all its streams
            report(self._sink, error)
            self.close()
        return self._untaken + self._owed <= LIMITS.link_window_items

    def take(self) -> None:
        """The sink is done with what it got."""
        self._owed += self._untaken
        self._untaken = 0
        if self._owed >= CREDIT_EVERY and not self.over:
            self._source.grant(self._stream, self._owed)
            self._owed = 0

    def end(self, error: FlotillaError | None = None) -> None:
        if not self.over:
            self.over = True
            try:
                self._sink.ended(error)
            except Exception as bug:  # the same: all streams of a link end at once when it breaks
                report(self._sink, bug)

    def close(self) -> None:
        """Nobody wants more of it: the sink hears nothing any more, and the other end stops."""
        if not self.over:
            self.over = True
            self._source.untap(self._stream)


def report(who: object, error: Exception) -> None:
    """A bug that nobody waits for, where the loop's own are reported."""
    context = {"message": f"{who!r} failed.", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)
