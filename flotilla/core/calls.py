"""What travels with a message from actor to actor, and with everything that is done because of it."""

from __future__ import annotations

import msgspec

CHAIN_MAX = 32


class Budget(msgspec.Struct, frozen=True, array_like=True):
    """What is left to spend on a request, by whoever works on it."""

    tokens: int = 100_000
    calls: int = 64


class Call(msgspec.Struct, frozen=True, array_like=True):
    """`left_s` is what remains until the deadline; `chain` the keys of the actors that wait for this
    answer, first to last: asking one of them again would wait for ever. `trace` is a W3C traceparent."""

    left_s: float | None = None
    chain: tuple[str, ...] = ()
    trace: str = ""
