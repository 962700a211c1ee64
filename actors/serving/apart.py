"""Pieces of a reply that come no faster than their reader has asked for.

Every piece costs each process on its way as much as a long one: to a host with hundreds of replies under way
a tenth of a second's words at once are worth more than each word by itself.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from flotilla.core.clock import Clock
from flotilla.core.generation import Finished, Generated, Piece

PIECES_PER_S = 1000.0
"""What a host asks for at most, of all its replies together."""
APART_MOST_S = 0.15
"""People read on without noticing."""
APART_LEAST_S = 0.02


def apart_s(replies: int) -> float:
    """What a host with so many replies under way asks for."""
    wanted = min(APART_MOST_S, replies / PIECES_PER_S)
    return wanted if wanted >= APART_LEAST_S else 0.0


async def apart(parts: AsyncGenerator[Generated], apart_s: float, clock: Clock) -> AsyncGenerator[Generated]:
    """The first piece at once, later ones at least `apart_s` apart. What is held back leaves with the next one
    that comes, so an engine that pauses leaves a word or two unseen for as long."""
    held: Piece | None = None
    due = clock.monotonic()
    async with aclosing(parts):
        async for part in parts:
            if isinstance(part, Finished):
                if held is not None:
                    yield held
                yield part
                continue
            held = part if held is None else held.joined(part)
            if (now := clock.monotonic()) >= due:
                yield held
                held, due = None, now + apart_s
