"""How long a customer who comes back takes to have everything that was missed.

Whoever plays the scenario, the lean client is the one that comes back: what is measured is the fleet, not what a
library makes of a thousand events. The library prepares them.
"""

from __future__ import annotations

import asyncio
import time

from benchmarks.load.conversation import Conversation
from benchmarks.load.crowd import Crowd
from benchmarks.load.orders import CatchUp
from benchmarks.load.sockets import SocketDoor

NOTING = 8  # notes that are added at once
TIMEOUT_S = 60.0
LOOK_EVERY_S = 0.001


async def caught_up(crowd: Crowd, order: CatchUp) -> list[float]:
    """Milliseconds from the connection's beginning to the last of the missed events, each time.

    The events are notes, which are as durable as any and quick to make. Gaps and doubles are counted as always.
    """
    taken: list[float] = []
    for _ in range(order.sessions):
        session, first, last = await _prepared(crowd, order.events)
        for _ in range(order.times):
            taken.append(await _once(crowd, session, first, last))
    return taken


async def _prepared(crowd: Crowd, events: int) -> tuple[str, int, int]:
    """A session's id, its `seq` before and after so many events."""
    session = await crowd.open_session()
    left = iter(range(events))

    async def work() -> None:
        for n in left:
            await session.note(f"Note {n}.", person="load", id=f"n-{n}")

    await asyncio.gather(*(work() for _ in range(NOTING)))
    return session.id, session.seq, session.seq + events


async def _once(crowd: Crowd, session: str, first: int, last: int) -> float:
    reader = Conversation(-1, crowd.notes, crowd.watch, checks=False)
    reader.session, reader.seq = session, first
    door = SocketDoor(crowd.way, reader, lambda _conversation, _code: None)
    reader.door = door
    began = time.monotonic()
    await door.connect()
    while reader.seq < last and time.monotonic() < began + TIMEOUT_S:
        await asyncio.sleep(LOOK_EVERY_S)
    took = time.monotonic() - began
    if reader.seq < last:
        crowd.notes.error("gap", f"{session}: {reader.seq} of {last} events after {TIMEOUT_S:g} s")
    await door.close()
    return took * 1000
