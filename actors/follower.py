"""Somebody who watches an actor: a bounded queue of frames between its loop and a link."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from flotilla.core.errors import FlotillaError, LimitReached
from flotilla.core.limits import LIMITS


class Follower:
    """`after` is the last event that it has seen, `offset` how many characters of the reply that was
    under way then."""

    def __init__(self, after: int, offset: int = 0, frames_max: int = LIMITS.follower_events_max) -> None:
        self.after = after
        self.offset = offset
        self._frames_max = frames_max
        self._frames: deque[bytes] = deque()
        self._arrived = asyncio.Event()
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
        if len(self._frames) >= self._frames_max:
            return self.end(
                LimitReached(
                    f"The reader is {self._frames_max} events behind.",
                    next="Connect again with `after` set to the last seq seen.",
                    retry_after_s=0.5,
                )
            )
        self._frames.append(frame)
        self._arrived.set()
        return None

    def end(self, error: FlotillaError) -> None:
        self._end = self._end or error
        self._arrived.set()

    async def frames(self) -> AsyncGenerator[bytes]:
        """Frames as they come; raises the reason when there will be no more."""
        while True:
            while self._frames:
                yield self._frames.popleft()
            if self._end is not None:
                raise self._end
            self._arrived.clear()
            await self._arrived.wait()
