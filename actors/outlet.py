"""Streams on their way out that are fed without a task: what happens is sent by whoever makes it happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from flotilla.core.errors import FlotillaError
from flotilla.core.limits import LIMITS


class Peer(Protocol):
    """The other end's side here: one socket, many outlets."""

    held: set[Outlet]

    @property
    def full(self) -> bool: ...

    def send_item(self, stream: int, body: bytes) -> None: ...

    def close(self, outlet: Outlet) -> bool: ...

    def end(self, stream: int, error: FlotillaError | None) -> None: ...


class Outlet:
    """One stream. Whoever feeds it sends while it is `ready`; if it is not, it says `wait` and is called
    by `on_ready`. `on_gone` is called once, when nobody is at the other end any more."""

    __slots__ = ("_credit", "_peer", "on_gone", "on_ready", "stream")

    def __init__(self, peer: Peer, stream: int) -> None:
        self._peer = peer
        self.stream = stream
        self._credit = LIMITS.link_window_items
        self.on_ready: Callable[[], object] | None = None
        self.on_gone: Callable[[], object] | None = None

    @property
    def ready(self) -> bool:
        return self._credit > 0 and not self._peer.full

    def send(self, item: bytes) -> None:
        self._credit -= 1
        self._peer.send_item(self.stream, item)

    def wait(self) -> None:
        """For the socket; who waits for credit is called with it."""
        if self._credit > 0:
            self._peer.held.add(self)

    def grant(self, items: int) -> None:
        self._credit += items
        if self.on_ready is not None:
            self.on_ready()

    def end(self, error: FlotillaError | None = None) -> None:
        """The first end counts."""
        if self._peer.close(self):
            self._peer.end(self.stream, error)
            self.stop()

    def stop(self) -> None:
        on_gone, self.on_gone, self.on_ready = self.on_gone, None, None
        if on_gone is not None:
            on_gone()


Feed = Callable[[bytes, Outlet], None]
"""Feeds a stream: the call's body in, items out through the outlet, now and later. Must not wait."""
