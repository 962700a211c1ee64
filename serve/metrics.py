"""What a gateway counts, for Prometheus."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from prometheus_client import Counter, Gauge

T = TypeVar("T")

OPEN_SOCKETS = Gauge("flotilla_open_sockets", "WebSockets that are open at this gateway.")
MESSAGES = Counter("flotilla_messages_total", "Messages accepted through this gateway.", ["again"])
REWOUND = Gauge("flotilla_replies_rewound", "Replies whose shown text had to be cut back after a crash.")


class _Streams:
    def __init__(self) -> None:
        self._gauge = Gauge("flotilla_open_streams", "SSE streams that are open at this gateway.")

    async def counted(self, frames: AsyncGenerator[T]) -> AsyncGenerator[T]:
        with self._gauge.track_inprogress():
            async with aclosing(frames):
                async for frame in frames:
                    yield frame


OPEN_STREAMS = _Streams()
