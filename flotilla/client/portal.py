"""From a thread without a loop into one that has nothing else: how the synchronous client waits for the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from flotilla.core.errors import Refused

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")


class Portal:
    """A loop in a thread of its own, which ends with `close` or with the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flotilla-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for `work`; whoever is interrupted meanwhile (Ctrl-C) stops it."""
        if self._loop.is_closed() or threading.current_thread() is self._thread:
            work.close()
            raise Refused("The client is closed.", next="Make a new one.")
        waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return waiting.result()
        except BaseException:
            waiting.cancel()
            raise

    def each(self, items: AsyncGenerator[T]) -> Iterator[T]:
        try:
            while True:
                try:
                    yield self.run(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            self.run(items.aclose())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _next(items: AsyncGenerator[T]) -> T:
    return await anext(items)


class Blocking(Generic[A]):
    """Something asynchronous, waited for."""

    def __init__(self, inner: A, portal: Portal) -> None:
        self.inner = inner
        self.portal = portal


def waits(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Blocking[A], P], T]:
    """`method`, for a `Blocking`: it returns when it is done."""

    def wait(blocking: Blocking[A], *args: P.args, **kwargs: P.kwargs) -> T:
        return blocking.portal.run(method(blocking.inner, *args, **kwargs))

    wait.__doc__, wait.__name__ = method.__doc__, getattr(method, "__name__", "wait")
    return wait


def iterates(
    method: Callable[Concatenate[A, P], AsyncGenerator[T]],
) -> Callable[Concatenate[Blocking[A], P], Iterator[T]]:
    """`method`, for a `Blocking`: a plain iterator."""

    def iterate(blocking: Blocking[A], *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return blocking.portal.each(method(blocking.inner, *args, **kwargs))

    iterate.__doc__, iterate.__name__ = method.__doc__, getattr(method, "__name__", "iterate")
    return iterate
