"""What waits for an actor: control before turns, bounded, and text that nobody has read yet in one piece."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from flotilla.core.errors import LimitReached
from flotilla.core.limits import LIMITS
from flotilla.core.signals import Close, Interrupt, Signal, Streamed

Ticket = asyncio.Future[msgspec.Struct]
"""Where the answer to an ask goes."""


class Mailbox:
    def __init__(self, signals_max: int = LIMITS.mailbox_signals_max) -> None:
        self._signals_max = signals_max
        self._control: deque[tuple[Signal, Ticket | None]] = deque()
        self._turns: deque[tuple[Signal, Ticket | None]] = deque()

    def __len__(self) -> int:
        return len(self._control) + len(self._turns)

    def put(self, signal: Signal, ticket: Ticket | None = None) -> None:
        """Raises `LimitReached` if an ask finds its queue full: a stop gets in however many messages
        wait. The actor's own work always gets in, as it is bounded by what runs."""
        control = isinstance(signal, Interrupt | Close)
        waiting = len(self._control if control else self._turns)
        if ticket is not None and waiting >= self._signals_max:
            raise LimitReached(f"{waiting} messages wait for this actor.", retry_after_s=1.0)
        if control:
            self._control.append((signal, ticket))
        elif not self._merged(signal):
            self._turns.append((signal, ticket))

    def _merged(self, signal: Signal) -> bool:
        """Text behind text of the same turn becomes one signal, so a slow actor has few, long ones."""
        if not isinstance(signal, Streamed) or not self._turns:
            return False
        last = self._turns[-1][0]
        if not isinstance(last, Streamed) or last.turn != signal.turn:
            return False
        self._turns[-1] = (Streamed(turn=last.turn, text=last.text + signal.text), None)
        return True

    def take(self) -> tuple[Signal, Ticket | None]:
        return self._control.popleft() if self._control else self._turns.popleft()

    def take_tickets(self) -> list[Ticket]:
        """Empties the mailbox; returns who still waits for an answer."""
        left = [ticket for _, ticket in (*self._control, *self._turns) if ticket is not None]
        self._control.clear()
        self._turns.clear()
        return left
