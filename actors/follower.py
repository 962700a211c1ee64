"""Somebody who watches an actor: a bounded queue of frames between its loop and whoever reads them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from actors.incoming import Sink
from actors.outcomes import moved
from actors.outlet import Outlet
from flotilla.core.errors import FlotillaError, LimitReached
from flotilla.core.limits import LIMITS


class Follower:
    """`after` is the last event that it has seen, `offset` how many characters of the reply that was
    under way then."""

    __slots__ = ("_end", "_frames", "_frames_max", "after", "offset")

    def __init__(self, after: int, offset: int = 0, frames_max: int = LIMITS.follower_events_max) -> None:
        self.after = after
        self.offset = offset
        self._frames_max = frames_max
        self._frames: deque[bytes] | None = None  # most wait for nothing
        self._end: FlotillaError | None = None

    def seen_of(self, started: int) -> int:
        """How many characters it has seen of the reply that was started with event `started`."""
        return self.offset if started <= self.after else 0

    @property
    def ended(self) -> bool:
        return self._end is not None

    def put(self, frame: bytes) -> None:
        """A reader that falls too far behind is let go, with what it needs to resume."""
        if self.ended:  # what comes behind a gap would not join
            return None
        frames = self._frames = deque() if self._frames is None else self._frames
        if len(frames) >= self._frames_max:
            return self._let_go()
        frames.append(frame)
        return self._arrived()

    def _let_go(self) -> None:
        self.end(
            LimitReached(
                f"The reader is {self._frames_max} events behind.",
                next="Connect again with `after` set to the last seq seen.",
                retry_after_s=0.5,
            )
        )

    def end(self, error: FlotillaError) -> None:
        self._end = self._end or error
        self._arrived()

    def _arrived(self) -> None:
        """Something is there to be read, or nothing more will be."""


class Local(Follower):
    """One in this process. What it reads goes to a sink in a later turn of the loop, as over a link, and no
    more than a link's window before the sink has taken it."""

    __slots__ = ("_due", "_over", "_sink", "_untaken", "on_gone")

    def __init__(
        self, after: int, offset: int, sink: Sink, frames_max: int = LIMITS.follower_events_max
    ) -> None:
        super().__init__(after, offset, frames_max)
        self._sink = sink
        self._due = False
        self._over = False
        self._untaken = 0
        self.on_gone: Callable[[], object] | None = None

    def _arrived(self) -> None:
        if not self._due and not self._over:
            self._due = True
            asyncio.get_running_loop().call_soon(self._hand_on)

    def _hand_on(self) -> None:
        self._due = False
        while self._frames and not self._over and self._untaken < LIMITS.link_window_items:
            self._untaken += 1
            self._sink.item(self._frames.popleft())
        if self._end is not None and not self._frames and not self._over:
            self._go()
            self._sink.ended(self._end)

    def take(self) -> None:
        """The sink is done with what it got."""
        self._untaken = 0
        if self._frames:
            self._arrived()

    def close(self) -> None:
        """The sink hears nothing any more."""
        if not self._over:
            self.end(moved())
            self._go()

    def _go(self) -> None:
        self._over = True
        if self.on_gone is not None:
            self.on_gone()


class Remote(Follower):
    """One behind a link: what it can take now leaves now, and no task waits for the rest."""

    __slots__ = ("_outlet",)

    def __init__(self, after: int, offset: int, outlet: Outlet) -> None:
        super().__init__(after, offset)
        self._outlet = outlet
        outlet.on_ready = self._arrived

    def put(self, frame: bytes) -> None:
        if not self._frames and self._end is None and self._outlet.ready:
            return self._outlet.send(frame)
        return super().put(frame)

    def _let_go(self) -> None:
        """It may never take anything again. So it is told now, and nothing is kept for it."""
        self._frames = None
        super()._let_go()

    def _arrived(self) -> None:
        frames, outlet = self._frames, self._outlet
        while frames and outlet.ready:
            outlet.send(frames.popleft())
        if frames:
            return outlet.wait()
        self._frames = None
        if self._end is not None:
            outlet.end(self._end)
        return None
