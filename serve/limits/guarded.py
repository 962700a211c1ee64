"""A stream of events that has a slot among those of its owner, and ends when its owner's key does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Any, TypeVar

from flotilla.core.errors import FlotillaError
from serve.doors import Doors
from serve.principals import Principal

T = TypeVar("T")


async def guarded(
    doors: Doors, who: Principal, frames: AsyncGenerator[T], *, quiet: bool = False
) -> AsyncGenerator[T]:
    """`frames`, until the key of `who` is revoked: then they end with `Unauthenticated`, or, where there is no
    way left to tell (`quiet`), just end. Raises `LimitReached` if there are too many."""
    leave = await doors.limits.stream(who)
    guarding = _Guarded(frames, leave, quiet=quiet)
    guarding.unwatch = doors.revocations.watch(who, guarding.gone)
    return guarding


class _Guarded(AsyncGenerator[T]):
    """Not a generator function: one that is dropped before it is read would never leave."""

    def __init__(self, frames: AsyncGenerator[T], leave: Callable[[], None], *, quiet: bool) -> None:
        self._frames = frames
        self._leave: Callable[[], None] | None = leave
        self._quiet = quiet
        self._reader: asyncio.Task[Any] | None = None
        self._error: FlotillaError | None = None
        self.unwatch: Callable[[], None] = _nothing

    def gone(self, error: FlotillaError) -> None:
        self._error = error
        if self._reader is not None:
            self._reader.cancel()  # waits for a frame; `asend` tells this from a cancellation of others'

    async def asend(self, value: Any) -> T:
        if self._error is not None:
            raise self._over(self._error)
        self._reader = asyncio.current_task()
        try:
            return await anext(self._frames)
        except StopAsyncIteration:
            self._end()
            raise
        except asyncio.CancelledError:
            if self._error is None or self._reader is None or self._reader.uncancel():
                raise
            raise self._over(self._error) from None
        finally:
            self._reader = None

    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> T:
        self._end()
        await self._frames.aclose()
        raise typ if isinstance(typ, BaseException) else typ()

    def _over(self, error: FlotillaError) -> Exception:
        self._end()
        return StopAsyncIteration() if self._quiet else error

    def _end(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            self.unwatch()
            leave()

    def __del__(self) -> None:
        self._end()


def _nothing() -> None:
    return None
