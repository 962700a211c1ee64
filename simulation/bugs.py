"""What a planted bug is."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import msgspec

from simulation.world import World


class Bug(msgspec.Struct, frozen=True):
    """`rules` are those that the checker may catch it by. Some are found only where there are `models`. `first` is a
    schedule that catches it, or did: to begin with that one saves playing those before it."""

    plant: Callable[[World], AbstractContextManager[None]]
    rules: frozenset[str]
    models: bool | None = None
    first: int = 0


def always(value: Any) -> Callable[[Any], Any]:
    """For `instead`: a method that returns this, and does nothing."""

    def make(_: Any) -> Any:
        def broken(*_: Any) -> Any:
            return value

        return broken

    return make


def always_later(value: Any) -> Callable[[Any], Any]:
    """The same of a coroutine."""

    def make(_: Any) -> Any:
        async def broken(*_: Any) -> Any:
            return value

        return broken

    return make


@contextmanager
def instead(owner: Any, name: str, make: Callable[[Any], Any]) -> Generator[None]:
    """`make` gets the method that is there and returns the one that is broken."""
    method = vars(owner)[name]
    setattr(owner, name, make(method))
    try:
        yield
    finally:
        setattr(owner, name, method)
