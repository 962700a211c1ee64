"""How patient to be with what fails in passing: a pause before each further try, longer each time.

Pauses double up to a bound, and each is drawn evenly between half of that and all of it, so that callers
who failed together don't come back together ("equal jitter": Brooker, Exponential Backoff And Jitter, 2015).
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import msgspec

from flotilla.core.errors import FlotillaError, Overloaded, Unavailable


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """Ends with whichever comes first, `most_s` seconds or `tries_max` tries."""

    first_s: float = 0.05
    longest_s: float = 2.0
    most_s: float = 30.0
    tries_max: int = 1_000


def pauses(patience: Patience, random: Random) -> Iterator[float]:
    """Seconds before the second try, the third, and so on."""
    longest = patience.first_s
    for _ in range(patience.tries_max - 1):
        yield longest * random.uniform(0.5, 1.0)
        longest = min(longest * 2, patience.longest_s)


def passes(error: FlotillaError) -> bool:
    """Whether another try may help. (What touches the world says `Unavailable` of a timeout.)"""
    return isinstance(error, Unavailable | Overloaded)


def pause_after(error: FlotillaError, pause_s: float) -> float:
    """Never sooner than the other side has asked for."""
    return max(pause_s, error.retry_after_s or 0.0)
