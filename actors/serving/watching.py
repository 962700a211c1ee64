"""A replica is well if it makes tokens, and its process ends if it doesn't."""

from __future__ import annotations

from contextlib import suppress
from typing import NoReturn, Protocol

from actors.serving.door import within
from flotilla.core.clock import Clock
from flotilla.core.errors import Overloaded, Unavailable
from flotilla.core.generation import EngineLoad

WATCH_EVERY_S = 1.0
# Of an engine with nothing else to do; and of one that may be reading the longest prompts that there are.
FIRST_TOKEN_MAX_S, BUSY_TOKEN_MAX_S = 20.0, 120.0


class Watched(Protocol):
    """A replica, or an engine by itself."""

    def load(self) -> EngineLoad: ...

    async def ping(self) -> None: ...


async def watch(
    engine: Watched,
    clock: Clock,
    *,
    first_token_max_s: float = FIRST_TOKEN_MAX_S,
    busy_token_max_s: float = BUSY_TOKEN_MAX_S,
) -> NoReturn:
    """Ends, by raising, with its engine: a process around a dead engine would refuse everything for ever."""
    while True:
        with suppress(Overloaded):  # busy is alive
            if not await _makes_a_token(engine, clock, first_token_max_s):
                made = not _is_idle(engine) and await _makes_a_token(engine, clock, busy_token_max_s)
                if not made:
                    raise Unavailable("The engine makes no token any more.", retry_after_s=30.0)
        await clock.sleep(WATCH_EVERY_S)


async def _makes_a_token(engine: Watched, clock: Clock, seconds: float) -> bool:
    try:
        await within(clock, seconds, engine.ping())
    except TimeoutError:
        return False
    return True


def _is_idle(engine: Watched) -> bool:
    """But for the ping, which an engine may still count."""
    load = engine.load()
    return load.running + load.waiting <= 1
