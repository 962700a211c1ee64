"""One blocking encoder, many callers: what arrives while a run is under way goes together into the next.

    results() ─ prepare ─ waiting (bounded) ─┬─ run: the shortest items that fit ─ a row each
    results() ─ prepare ─────────────────────┘

A lone item runs at once. Of those that wait the shortest go first, so that a question overtakes an ingest;
an item that waited `PATIENCE_S` overtakes everyone. Items of one run have similar lengths, so padding is
little. There is no window in which to gather more: 1 to 3 ms of it added no throughput at 1 to 32 callers,
and its length to every answer (docs/decisions/0021).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from flotilla.core.errors import FlotillaError, Overloaded, Unavailable

RUN_TOKENS_MAX = 512  # padding included: about 50 ms on two cores, the longest that a question waits
SLICE_MAX = 32  # of one caller in the queue at a time, so that nobody fills it
WAITING_MAX = 1024
PATIENCE_S = 1.0


class Item(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What an encoder has prepared: as it wants it, and how many tokens it is."""

    value: Any
    tokens: int


class Encoder(Protocol):
    """Blocking: called in threads only. One thread runs while another prepares."""

    def prepare(self, inputs: list[Any]) -> list[Item]: ...

    def run(self, values: list[Any]) -> Any:
        """An array with a row for each of `values`."""
        ...


class Waiting(msgspec.Struct, frozen=True, eq=False):
    """An item and who waits for its row."""

    item: Item
    since_s: float
    row: asyncio.Future[Any]


def next_run(waiting: Sequence[Waiting], now_s: float, tokens_max: int) -> list[Waiting]:
    """Who goes next: at least one, and no more than `tokens_max` tokens with the padding."""
    late = [one for one in waiting if now_s - one.since_s > PATIENCE_S]
    chosen: list[Waiting] = []
    for one in sorted(late or waiting, key=lambda one: one.item.tokens):
        if chosen and one.item.tokens * (len(chosen) + 1) > tokens_max:
            break
        chosen.append(one)
    return chosen


class Batches:
    """`what` is the engine's name in errors; `load` makes the encoder, in a thread, for whoever asks first."""

    def __init__(self, what: str, load: Callable[[], Encoder], *, waiting_max: int = WAITING_MAX) -> None:
        self._what = what
        self._load = load
        self._waiting_max = waiting_max
        self._waiting: list[Waiting] = []
        self._runner: asyncio.Task[None] | None = None
        self._encoder: asyncio.Future[Encoder] | None = None
        self._closed = False
        self._pool = ThreadPoolExecutor(2, thread_name_prefix=what)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def __repr__(self) -> str:
        return f"<Batches {self._what}: {len(self._waiting)}/{self._waiting_max} waiting>"

    async def results(self, inputs: Sequence[Any]) -> list[Any]:
        """A row for each of `inputs`, which may be none.

        Raises `Overloaded` past `waiting_max`, `Unavailable` if the engine fails or once closed.
        """
        encoder = await self.loaded()
        items: list[Item] = await self._in_thread(encoder.prepare, list(inputs)) if inputs else []
        rows: list[Any] = [None] * len(items)
        order = sorted(range(len(items)), key=lambda n: items[n].tokens)
        for start in range(0, len(order), SLICE_MAX):
            part = order[start : start + SLICE_MAX]
            for n, row in zip(part, await self._submit([items[n] for n in part]), strict=True):
                rows[n] = row
        return rows

    async def loaded(self) -> Encoder:
        """Raises `Unavailable` once closed, or if the engine can't be loaded."""
        if self._closed:
            raise self._gone()
        if self._encoder is None:
            self._encoder = asyncio.ensure_future(self._in_thread(self._load))
        loading = self._encoder
        try:
            return await asyncio.shield(loading)
        except FlotillaError:
            self._encoder = None
            raise
        except Exception as broken:  # a library's, of weights that it can't take
            self._encoder = None
            reason = f"{type(broken).__name__}: {broken}"[:300]
            raise Unavailable(
                f"The weights of {self._what} can't be loaded: {reason}", retry_after_s=30.0
            ) from broken

    async def close(self) -> None:
        self._closed = True
        for one in self._waiting:
            one.row.cancel()
        self._waiting.clear()
        if self._runner:
            await asyncio.wait((self._runner,))
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- the queue ---

    async def _submit(self, items: Sequence[Item]) -> list[Any]:
        if len(self._waiting) + len(items) > self._waiting_max:
            raise Overloaded(
                f"{len(self._waiting)} texts wait for {self._what}; the limit is {self._waiting_max}.",
                next="Send it again in a second.",
                retry_after_s=1.0,
            )
        loop = asyncio.get_running_loop()
        mine = [Waiting(item, time.monotonic(), loop.create_future()) for item in items]
        self._waiting.extend(mine)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run_all(), name=self._what)
        try:
            return await asyncio.gather(*(one.row for one in mine))
        except asyncio.CancelledError:
            if self._closed:
                raise self._gone() from None
            raise

    async def _run_all(self) -> None:
        while self._waiting:
            run = next_run(self._waiting, time.monotonic(), RUN_TOKENS_MAX)
            chosen = {id(one) for one in run}
            self._waiting = [one for one in self._waiting if id(one) not in chosen]
            await self._run([one for one in run if not one.row.done()])

    async def _run(self, run: list[Waiting]) -> None:
        """Everyone of `run` gets a row or the reason why not; never raises."""
        if not run:
            return  # everyone gave up waiting
        try:
            encoder = await self.loaded()
            rows = await self._in_thread(encoder.run, [one.item.value for one in run])
        except Exception as broken:
            problem = Unavailable(f"{self._what} failed: {broken}", retry_after_s=1.0)
            for one in run:
                if not one.row.done():
                    one.row.set_exception(problem)
            return
        for one, row in zip(run, rows, strict=True):
            if not one.row.done():
                one.row.set_result(row)

    async def _in_thread(self, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)

    def _gone(self) -> Unavailable:
        return Unavailable(f"{self._what} is closed.")
