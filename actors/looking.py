"""Looking at something again and again: how a process keeps up with what others write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError


async def keep_looking(
    look: Callable[[], Awaitable[object]],
    every_s: float,
    clock: Clock,
    blind: Callable[[FlotillaError], object],
) -> None:
    """Until cancelled. A look that fails is told to `blind`; what the one before it saw stays, until one
    succeeds. Raises what is no `FlotillaError`: that is a bug."""
    while True:
        try:
            await look()
        except FlotillaError as error:
            blind(error)
        await clock.sleep(every_s)
