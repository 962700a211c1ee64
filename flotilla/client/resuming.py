"""One stream of events over any number of connections. SSE, WebSocket and gRPC all come back this way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from flotilla.client.events import Event
from flotilla.client.reading import Gap, Reader
from flotilla.client.trying import Trying
from flotilla.core.errors import FlotillaError, Unavailable

Connect = Callable[[str], AsyncGenerator[Event]]
"""Opens a connection at a place: its events, until it ends or raises."""


class Missing(Unavailable):
    """Events that should have come did not; they are asked for once more."""


async def resumed(
    connect: Connect, reader: Reader, trying: Trying, ends: Callable[[Event], bool]
) -> AsyncGenerator[Event]:
    """Every event once, up to and with the one that `ends` it. Raises what can't be mended by coming back."""
    while True:
        try:
            async with aclosing(connect(reader.place)) as wire:
                async for event in wire:
                    for shown in reader.take(event):
                        trying.progressed()
                        yield shown
                        if ends(shown):
                            return
            broken: FlotillaError = Unavailable("The stream ended early.", next="See `flotilla status`.")
        except Gap:
            broken = Missing(f"Events behind {reader.place} are missing.", next="See `flotilla status`.")
        except FlotillaError as error:
            broken = error
        await trying.come_back(broken)
