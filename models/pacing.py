"""When the scripted engine's tokens are due: one by one at a pace, out of a capacity that all replies share,
and not before the prompt has been read."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

from flotilla.core.clock import Clock

LOOK_AGAIN_S = 0.05
"""A share of the capacity grows when other replies end: nobody sleeps on what it was for longer."""


class Metronome:
    """One timer per tick, however many wait for it."""

    def __init__(self, clock: Clock, tick_s: float) -> None:
        self._clock = clock
        self._tick_s = tick_s
        self._beats: dict[int, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def until(self, moment: float) -> None:
        """Returns at the first beat at or after `moment` (of the clock's `monotonic`)."""
        if moment > self._clock.monotonic():
            await self._beat(math.ceil(moment / self._tick_s)).wait()

    def _beat(self, number: int) -> asyncio.Event:
        event = self._beats.get(number)
        if event is None:
            event = self._beats[number] = asyncio.Event()
            task = asyncio.ensure_future(self._ring(number, event))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return event

    async def _ring(self, number: int, event: asyncio.Event) -> None:
        try:
            await self._clock.sleep(max(0.0, number * self._tick_s - self._clock.monotonic()))
        finally:  # also when stopped: nobody waits for a beat that never comes
            self._beats.pop(number, None)
            event.set()

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()


class Pace(Protocol):
    """One reply's."""

    async def wait(self, played: int) -> None:
        """Returns when the token behind `played` others is due."""
        ...

    def due(self, played: int, last: int) -> int:
        """How many tokens are to be out by now: all that are due go in one piece, as in an engine
        whose reader fell behind."""
        ...

    def end(self) -> None: ...


class SteadyPace:
    """A token every `token_s`, however many replies there are; 0 makes them as fast as they are read."""

    def __init__(
        self, clock: Clock, metronome: Metronome, start: float, first_s: float, token_s: float
    ) -> None:
        self._clock, self._metronome = clock, metronome
        self._start, self._first_s, self._token_s = start, first_s, token_s

    async def wait(self, played: int) -> None:
        if played == 0 or self._token_s > 0:
            await self._metronome.until(self._start + self._first_s + played * self._token_s)

    def due(self, played: int, last: int) -> int:
        since = self._clock.monotonic() - self._start - self._first_s
        by_now = math.floor(since / self._token_s) + 1 if self._token_s > 0 else played + 1
        return min(last, max(played + 1, by_now))

    def end(self) -> None: ...


class Capacity:
    """What an engine can make, split evenly between the replies that run."""

    def __init__(self, clock: Clock, tokens_per_s: float, token_s: float) -> None:
        self._clock = clock
        self._tokens_per_s, self._token_s = tokens_per_s, token_s
        self._running, self._made, self._at = 0, 0.0, 0.0

    def join(self) -> float:
        """What each has made so far: where the one that joins begins to count."""
        made = self.made()
        self._running += 1
        return made

    def leave(self) -> None:
        self.made()
        self._running -= 1

    def made(self) -> float:
        """The tokens that a reply would have that had run from the beginning."""
        now = self._clock.monotonic()
        self._made += (now - self._at) * self._rate() if self._at else 0.0
        self._at = now
        return self._made

    def seconds(self, tokens: float) -> float:
        """That each reply needs for so many tokens, if nothing changes."""
        return tokens / self._rate()

    def _rate(self) -> float:
        share = self._tokens_per_s / max(1, self._running)
        return min(share, 1 / self._token_s) if self._token_s > 0 else share


class SharedPace:
    """Its share of the capacity, from the first token on."""

    def __init__(self, clock: Clock, metronome: Metronome, first_at: float, capacity: Capacity) -> None:
        self._clock, self._metronome = clock, metronome
        self._first_at, self._capacity = first_at, capacity
        self._base: float | None = None

    async def wait(self, played: int) -> None:
        if self._base is None:
            await self._metronome.until(self._first_at)
            self._base = self._capacity.join()
        while (missing := self._base + played + 1 - self._capacity.made()) > 1e-9:
            delay = min(LOOK_AGAIN_S, self._capacity.seconds(missing))
            await self._metronome.until(self._clock.monotonic() + delay)

    def due(self, played: int, last: int) -> int:
        assert self._base is not None
        return min(last, max(played + 1, math.floor(self._capacity.made() - self._base)))

    def end(self) -> None:
        if self._base is not None:
            self._capacity.leave()


class Prefill:
    """Reads prompts one after the other, at so many tokens a second; 0 reads them at once."""

    def __init__(self, clock: Clock, metronome: Metronome, tokens_per_s: float) -> None:
        self._clock, self._metronome, self._tokens_per_s = clock, metronome, tokens_per_s
        self._turn = asyncio.Lock()  # wakes in the order of arrival
        self._free_at = 0.0
        self.waiting = 0
        self.queued_tokens = 0

    async def read(self, tokens: int) -> None:
        """Returns when a prompt with so many tokens that nothing is known of has been read."""
        arrived = self._clock.monotonic()
        self.waiting += 1
        self.queued_tokens += tokens
        try:
            async with self._turn:
                await self._read(max(arrived, self._free_at) + tokens / self._tokens_per_s)
        finally:
            self.waiting -= 1
            self.queued_tokens -= tokens

    async def _read(self, ready_at: float) -> None:
        try:
            await self._metronome.until(ready_at)
            self._free_at = ready_at  # not now: what a tick adds is not lost for the next
        except asyncio.CancelledError:
            self._free_at = self._clock.monotonic()
            raise
