"""Following: an actor's events as they come, carried over from host to host."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from actors.place import Place
from actors.watch import Viewer, Watch
from actors.ways import Ways
from flotilla.core.errors import FlotillaError
from flotilla.core.ids import ActorId
from flotilla.views.events import Frame


class Following:
    """`rewound` counts how often a reply had to be cut back at a reader's."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self.rewound = 0

    def watch(self, actor: ActorId, after: int, offset: int, viewer: Viewer) -> Watch:
        """Calls `viewer` with every event with `seq > after`, until the watch is closed."""
        watch = Watch(self._ways, actor, Place(after, offset, self._count), viewer)
        watch.start()
        return watch

    def _count(self) -> None:
        self.rewound += 1

    async def follow(self, actor: ActorId, after: int, offset: int = 0) -> AsyncGenerator[Frame]:
        """The same for somebody who waits for them, for as long as it does."""
        reading = self.read(actor, after, offset)
        try:
            while (frame := await reading.next()) is not None:
                yield frame
        finally:
            reading.close()

    def read(self, actor: ActorId, after: int, offset: int = 0) -> Reading:
        """The same for somebody who waits, and doesn't wait for ever. To be closed."""
        reading = Reading()
        reading.watch = self.watch(actor, after, offset, reading)
        return reading


class Reading:
    """Frames that wait for their reader: no more than a stream's window, as the watch is told of none before
    all were taken."""

    def __init__(self) -> None:
        self.watch: Watch | None = None
        self.stopped = False
        self._frames: deque[Frame] = deque()
        self._error: FlotillaError | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def next(self, timeout_s: float | None = None) -> Frame | None:
        """None when nothing has come in time or, for good, once it is `stopped`. Raises why there will be no
        more."""
        if not self._frames:
            self._take()
            await self._wait(timeout_s)
        if self._frames:
            return self._frames.popleft()
        if self._error is not None:
            raise self._error
        return None

    def stop(self) -> None:
        """What has come is still read, and nothing more comes."""
        self.stopped = True
        self.close()
        self._wake()

    def close(self) -> None:
        if self.watch is not None:
            self.watch.close()

    def frame(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._wake()

    def failed(self, error: FlotillaError) -> None:
        self._error = error
        self._wake()

    def _take(self) -> None:
        if self.watch is not None:
            self.watch.take()

    async def _wait(self, timeout_s: float | None) -> None:
        if self._frames or self._error is not None or self.stopped:
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
