"""Whose turn it is: every actor with something to do gets one step, then the next one.

A noisy actor waits behind all others after each of its messages, so it can't starve them; and after
a slice of steps sockets and timers get theirs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

STEPS_PER_SLICE = 64


class Steps(Protocol):
    def step(self) -> bool:
        """Does one thing; True if there is more to do at once."""
        ...


class RunQueue:
    def __init__(self) -> None:
        self._ready: deque[Steps] = deque()
        self._scheduled = False

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, actor: Steps) -> None:
        """Call it once: an actor is in the queue until its `step` has nothing more to do."""
        self._ready.append(actor)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        ready = self._ready
        try:
            for _ in range(min(STEPS_PER_SLICE, len(ready))):
                actor = ready.popleft()
                if actor.step():
                    ready.append(actor)
        finally:  # a step that breaks must not stop all the others
            self._scheduled = bool(ready)
            if ready:
                asyncio.get_running_loop().call_soon(self._run)
