"""Who waits for an answer: in this process, behind a link, or for a stream of parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol

from actors import frames
from flotilla.core.errors import FlotillaError, LimitReached, MailboxFull
from flotilla.core.limits import LIMITS


class Ticket(Protocol):
    @property
    def gone(self) -> bool:
        """Nobody waits any more."""
        ...

    def answer(self, value: Any) -> None: ...

    def refuse(self, error: FlotillaError) -> None: ...

    def part(self, value: Any) -> None: ...

    def when_gone(self, tell: Callable[[], None]) -> None:
        """`tell` is called should the asker give up."""
        ...


class Promise:
    """An asker in this process: it awaits `future`."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def gone(self) -> bool:
        return self.future.done()

    def answer(self, value: Any) -> None:
        if not self.future.done():
            self.future.set_result(value)

    def refuse(self, error: FlotillaError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def part(self, value: Any) -> None:
        """Whoever awaits one answer gets the last."""

    def when_gone(self, tell: Callable[[], None]) -> None:
        self.future.add_done_callback(lambda future: tell() if future.cancelled() else None)


class Copied(Promise):
    """An asker in this process that gets its answer as one behind a link does, in bytes: actors share no
    memory with anybody."""

    def answer(self, value: Any) -> None:
        super().answer(frames.encode(value))


class Replayed:
    """Around the ticket of somebody who replays the dead letter of that id: wants to know that the actor
    has taken the message, and not what it answers."""

    __slots__ = ("_ticket", "letter", "taken")

    def __init__(self, ticket: Ticket, letter: str) -> None:
        self._ticket = ticket
        self.letter = letter
        self.taken = False

    @property
    def gone(self) -> bool:
        """It is handled also if nobody waits any more: it was accepted once."""
        return False

    def answer(self, value: Any) -> None:
        self.taken = True
        self._ticket.answer(None)

    def refuse(self, error: FlotillaError) -> None:
        if not self.taken:
            self._ticket.refuse(error)

    def part(self, value: Any) -> None:
        """It waits for no answer."""

    def when_gone(self, tell: Callable[[], None]) -> None:
        """The actor has promised an answer, so it has the message."""
        self.answer(None)


class Stream:
    """An asker of a stream: parts, then the answer, which ends it."""

    def __init__(self, parts_max: int = LIMITS.follower_events_max) -> None:
        self._parts: asyncio.Queue[tuple[bool, Any]] = asyncio.Queue()
        self._parts_max = parts_max
        self._tell: Callable[[], None] | None = None
        self._ended = False
        self.gone = False

    def answer(self, value: Any) -> None:
        self._put(True, value)

    def refuse(self, error: FlotillaError) -> None:
        self._put(True, error)

    def part(self, value: Any) -> None:
        if self._parts.qsize() >= self._parts_max:  # too slow a reader: it must not cost the actor
            return self.refuse(LimitReached(f"The reader is {self._parts_max} parts behind."))
        return self._put(False, value)

    def _put(self, last: bool, value: Any) -> None:
        if not self._ended:
            self._ended = last
            self._parts.put_nowait((last, value))

    def when_gone(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        if self.gone:
            tell()

    async def items(self) -> AsyncGenerator[Any]:
        try:
            last = False
            while not last:
                last, value = await self._parts.get()
                if isinstance(value, FlotillaError):
                    raise value
                yield value
        finally:
            self.gone = True
            if self._tell is not None:
                self._tell()


class Tickets:
    """Those whom an actor has promised an answer, by the key that it gave them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_key: dict[str, list[Ticket]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_key.values()))

    def put(self, key: str, ticket: Ticket, abandoned: Callable[[str], None]) -> None:
        if len(self) >= self._most:
            raise MailboxFull(f"{self._most} callers wait for this actor.", retry_after_s=1.0)
        self._by_key.setdefault(key, []).append(ticket)
        ticket.when_gone(lambda: self._left(key, ticket, abandoned))

    def _left(self, key: str, ticket: Ticket, abandoned: Callable[[str], None]) -> None:
        waiting = self._by_key.get(key, [])
        if ticket in waiting:
            waiting.remove(ticket)
            if not waiting:
                del self._by_key[key]
                abandoned(key)

    def waiting(self, key: str) -> list[Ticket]:
        return self._by_key.get(key, [])

    def take(self, key: str) -> list[Ticket]:
        return self._by_key.pop(key, [])

    def take_all(self) -> list[Ticket]:
        tickets = [ticket for waiting in self._by_key.values() for ticket in waiting]
        self._by_key.clear()
        return tickets
