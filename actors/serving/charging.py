"""Charges on their way to the ledger: in batches, behind the replies, which never wait for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from flotilla.core.charges import Charge
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError, Overloaded, Unavailable
from flotilla.core.ports import UsageLedger

FLUSH_EVERY_S = 0.5
BATCH_MAX = 500
WAITING_MAX = 50_000  # about 100 replies a second through an outage of eight minutes
RETRY_MOST_S = 5.0
CLOSE_S = 5.0
DROPS_PER_LINE = 1_000

Opening = Callable[[], Awaitable[UsageLedger]]
"""The ledger, opened when it is first needed. Raises `Unavailable` while it can't be."""


class Charging:
    """Give it `run()` as a task, and `aclose()` when no more replies come. `heard` is told each charge at
    once, as who counts along is."""

    def __init__(
        self, opening: Opening, clock: Clock, log: Any, *, heard: Callable[[Charge], None] = lambda _: None
    ) -> None:
        self._opening = opening
        self._clock = clock
        self._log = log
        self._heard = heard
        self._waiting: deque[Charge] = deque()
        self._full = asyncio.Event()  # a batch's worth waits
        self._writing = asyncio.Lock()
        self.dropped = 0
        """Charges that were lost: more than `WAITING_MAX` waited, or the ledger could not take them."""

    def __repr__(self) -> str:
        return f"<Charging: {len(self._waiting)} waiting, {self.dropped} dropped>"

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def charge(self, charge: Charge) -> None:
        """Never waits and never fails: a reply that was made is not undone by its bill."""
        self._heard(charge)
        if len(self._waiting) >= WAITING_MAX:
            self._drop(1, "too many wait")
            return
        self._waiting.append(charge)
        if len(self._waiting) >= BATCH_MAX:
            self._full.set()

    async def run(self) -> None:
        """Writes, every `FLUSH_EVERY_S` or as soon as a batch is full, until it is cancelled."""
        pause_s = FLUSH_EVERY_S
        while True:
            await self._next(pause_s)
            try:
                await self.flush()
                pause_s = FLUSH_EVERY_S
            except FlotillaError as error:
                pause_s = min(2 * pause_s, RETRY_MOST_S)
                self._log.warning("charges.wait", waiting=len(self._waiting), reason=error.detail)

    async def _next(self, pause_s: float) -> None:
        if pause_s > FLUSH_EVERY_S:  # the ledger is down: a full batch doesn't make it come back
            return await self._clock.sleep(pause_s)
        full = asyncio.ensure_future(self._full.wait())
        late = asyncio.ensure_future(self._clock.sleep(pause_s))
        try:
            await asyncio.wait({full, late}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            full.cancel()
            late.cancel()

    async def flush(self) -> None:
        """Writes all that waits. Raises `Unavailable` if the ledger is down; nothing is lost then."""
        async with self._writing:
            self._full.clear()
            ledger = await self._opening() if self._waiting else None
            while ledger is not None and self._waiting:
                batch = [self._waiting[n] for n in range(min(BATCH_MAX, len(self._waiting)))]
                await self._write(ledger, batch)
                for _ in batch:  # only now: who is cancelled in between writes them again
                    self._waiting.popleft()

    async def _write(self, ledger: UsageLedger, batch: Sequence[Charge]) -> None:
        try:
            await ledger.charge(batch)
        except (Unavailable, Overloaded):
            raise
        except Exception as error:
            await self._halve(ledger, batch, error)

    async def _halve(self, ledger: UsageLedger, batch: Sequence[Charge], error: Exception) -> None:
        """One of the batch can't be written, so none was: find out which, and go on without it."""
        if len(batch) == 1:
            return self._drop(1, str(error))
        await self._write(ledger, batch[: len(batch) // 2])
        await self._write(ledger, batch[len(batch) // 2 :])
        return None

    def _drop(self, count: int, reason: str) -> None:
        self.dropped += count
        if count == 1 and self.dropped % DROPS_PER_LINE != 1:
            return  # an outage is a line now and then, and not one a reply
        self._log.error("charges.dropped", count=count, all=self.dropped, reason=reason)

    async def aclose(self) -> None:
        """Writes what waits, if the ledger takes it within `CLOSE_S` seconds."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.flush()
        except (FlotillaError, TimeoutError) as error:
            if self._waiting:
                self._drop(len(self._waiting), f"{type(error).__name__} while closing")
            self._waiting.clear()
