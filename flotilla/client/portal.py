"""From a thread without a loop into one that has nothing else: how the synchronous client waits for the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar
from weakref import WeakSet

from flotilla.client.closing import closed

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")


class Closes(Protocol):
    async def aclose(self) -> None: ...


class Portal:
    """A loop in a thread of its own, which ends with `close` or with the process. Any thread may use it."""

    def __init__(self) -> None:
        self.open: WeakSet[Closes] = WeakSet()
        """What ends with the portal, if it has not before."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flotilla-client", daemon=True)
        self._closing = threading.RLock()
        self._closed = False
        self._dropped: set[asyncio.Task[None]] = set()
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for `work`; whoever is interrupted meanwhile (Ctrl-C) stops it. Raises `Refused` if the portal is
        closed, or is closed meanwhile."""
        waiting = self._begin(work)
        try:
            return waiting.result()
        except CancelledError:
            raise closed() from None
        except BaseException:
            waiting.cancel()
            raise

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        with self._closing:
            if self._closed or self._inside:
                work.close()
                raise closed()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    @property
    def _inside(self) -> bool:
        return threading.current_thread() is self._thread

    def each(self, items: AsyncGenerator[T]) -> Iterator[T]:
        stream = _Stream(items)
        self.open.add(stream)
        try:
            while True:
                try:
                    yield self.run(stream.next())
                except StopAsyncIteration:
                    return
        finally:
            self._drop(stream)

    def _drop(self, stream: Closes) -> None:
        """The collector of cycles may drop an iterator in any thread, and so in the loop's own."""
        if self._inside:
            dropped = self._loop.create_task(stream.aclose())
            self._dropped.add(dropped)
            dropped.add_done_callback(self._dropped.discard)
        elif not self._closed:
            self.run(stream.aclose())

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Ends what is under way, then does what comes `last`. Whoever comes second waits for the first."""
        last = last or asyncio.sleep(0)
        with self._closing:
            first, self._closed = not self._closed, True
            winding_up = asyncio.run_coroutine_threadsafe(self._wind_up(last), self._loop) if first else None
        if winding_up is None:
            last.close()
            return self._thread.join()
        try:
            winding_up.result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _wind_up(self, last: Coroutine[Any, Any, None]) -> None:
        await asyncio.gather(*self._dropped, return_exceptions=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.gather(*(one.aclose() for one in list(self.open)), return_exceptions=True)
        await last
        await self._loop.shutdown_asyncgens()


class _Stream(Generic[T]):
    """What a plain iterator reads."""

    def __init__(self, items: AsyncGenerator[T]) -> None:
        self._items = items
        self._coming: asyncio.Task[T] | None = None

    async def next(self) -> T:
        self._coming = asyncio.create_task(self._next())
        return await self._coming

    async def _next(self) -> T:
        return await anext(self._items)

    async def aclose(self) -> None:
        """Behind what is under way: a generator that runs can't be closed."""
        if self._coming is not None:
            if not self._coming.cancelling():  # once, or its own end would be cut short
                self._coming.cancel()
            await asyncio.gather(self._coming, return_exceptions=True)
        await self._items.aclose()


class Blocking(Generic[A]):
    """Something asynchronous, waited for."""

    def __init__(self, inner: A, portal: Portal) -> None:
        self.inner = inner
        self.portal = portal


def waits(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Blocking[A], P], T]:
    """`method`, for a `Blocking`: it returns when it is done."""

    @wraps(method)
    def wait(blocking: Blocking[A], *args: P.args, **kwargs: P.kwargs) -> T:
        return blocking.portal.run(method(blocking.inner, *args, **kwargs))

    return wait


def iterates(
    method: Callable[Concatenate[A, P], AsyncGenerator[T]],
) -> Callable[Concatenate[Blocking[A], P], Iterator[T]]:
    """`method`, for a `Blocking`: a plain iterator."""

    @wraps(method)
    def iterate(blocking: Blocking[A], *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return blocking.portal.each(method(blocking.inner, *args, **kwargs))

    return iterate
