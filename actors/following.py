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
        waiting = _Waiting()
        watch = self.watch(actor, after, offset, waiting)
        try:
            while True:
                while waiting.frames:
                    yield waiting.frames.popleft()
                watch.take()
                if waiting.error is not None:
                    raise waiting.error
                waiting.arrived.clear()
                if not waiting.frames:
                    await waiting.arrived.wait()
        finally:
            watch.close()


class _Waiting:
    """Holds no more than a stream's window: the watch takes nothing before it is empty."""

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self.arrived = asyncio.Event()
        self.error: FlotillaError | None = None

    def frame(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.arrived.set()

    def failed(self, error: FlotillaError) -> None:
        self.error = error
        self.arrived.set()
