"""Messages that were said on a socket and are not accepted yet. Pure. They outlive their connection, and are said
again under the same id, in order, until the fleet has them."""

from __future__ import annotations

from flotilla.client.conversing import Outgoing
from flotilla.client.limits import ClientLimits
from flotilla.core.errors import LimitReached

_AT_ONCE = 0.0


class _Waiting:
    __slots__ = ("due", "message", "tries")

    def __init__(self, message: Outgoing) -> None:
        self.message = message
        self.due = _AT_ONCE
        self.tries = 0


class Outbox:
    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._waiting: dict[str, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, message: Outgoing) -> None:
        """Raises `LimitReached` if too many wait."""
        if len(self._waiting) >= self._limits.outbox_messages_max:
            raise LimitReached(
                f"{len(self._waiting)} messages wait to be accepted.",
                field="outbox_messages_max",
                next="Read events until some are.",
            )
        self._waiting.setdefault(message.id, _Waiting(message))

    def reconnected(self) -> None:
        """What was said on the connection before may be lost with it."""
        for waiting in self._waiting.values():
            waiting.due = _AT_ONCE

    def due(self, now: float) -> Outgoing | None:
        """What to say now: one at a time, so that they are accepted in the order in which they were added. It is
        due again if nobody accepts it."""
        first = self._first
        if first is None or first.due > now:
            return None
        first.due = now + self._limits.overdue_s
        return first.message

    @property
    def next_due(self) -> float | None:
        return self._first.due if self._first else None

    @property
    def _first(self) -> _Waiting | None:
        return next(iter(self._waiting.values()), None)

    def accepted(self, id: str) -> None:
        self._waiting.pop(id, None)

    def put_off(self, id: str, until: float) -> bool:
        """The fleet can't take it now. False if that was so too often, or it isn't waited for: it is out."""
        waiting = self._waiting.get(id)
        if waiting is None:
            return False
        waiting.due, waiting.tries = until, waiting.tries + 1
        if waiting.tries < self._limits.message_tries_max:
            return True
        del self._waiting[id]
        return False
