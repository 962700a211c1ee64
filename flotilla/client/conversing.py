"""Talking to one session, over whatever wire: send, ask, follow."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

import msgspec

from flotilla.client.events import Accepted, Completed, Denied, Event, Failed, Interrupted
from flotilla.client.events import Closed as SessionClosed
from flotilla.client.reading import Reader
from flotilla.client.resuming import resumed
from flotilla.client.trying import Trying
from flotilla.core.agents import WhileTalking
from flotilla.core.errors import Conflict, error_of
from flotilla.core.facts import Citation, Timing
from flotilla.core.generation import Usage
from flotilla.core.ids import new_id


class Outgoing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message on its way. Under one `id` it is taken once, however often it is sent."""

    id: str
    text: str
    while_talking: WhileTalking | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A finished reply. `seq` is that of its end; if it was `interrupted`, `text` is what was said by then."""

    text: str
    turn: str
    seq: int
    model: str = ""
    citations: tuple[Citation, ...] = ()
    usage: Usage = Usage()
    timing: Timing = Timing()
    confidence: float = 0.0
    offers_person: bool = False
    interrupted: bool = False


class Wire(Protocol):
    """How the events of a session get here: one connection each, which may break at any time."""

    def trying(self) -> Trying: ...

    def send(self, session: str, message: Outgoing) -> AsyncGenerator[Event]:
        """The events of the message's turn."""
        ...

    def follow(self, session: str, place: str) -> AsyncGenerator[Event]:
        """All events behind `place`."""
        ...


class Conversing:
    """A session, by its id."""

    def __init__(self, id: str, wire: Wire) -> None:
        self.id = id
        self._wire = wire

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"

    async def send(
        self, text: str, *, id: str | None = None, while_talking: WhileTalking | None = None
    ) -> AsyncGenerator[Event]:
        """The events of the turn that `text` begins, from `Accepted` to its end. What is cut goes on; the same
        `id` again gives the same turn."""
        message = Outgoing(id=id or new_id("m"), text=text, while_talking=while_talking)
        turn, reader = OfTurn(message.id), Reader(whole=False)

        def connect(place: str) -> AsyncGenerator[Event]:
            if reader.seq == 0:
                return turn.only(self._wire.send(self.id, message))
            return turn.only(self._wire.follow(self.id, place))

        async with aclosing(resumed(connect, reader, self._wire.trying(), turn.ends)) as events:
            async for event in events:
                yield event

    async def ask(
        self, text: str, *, id: str | None = None, while_talking: WhileTalking | None = None
    ) -> Reply:
        """The finished reply. Raises what it failed with; `Conflict` if a person answers and no agent."""
        async with aclosing(self.send(text, id=id, while_talking=while_talking)) as events:
            return await finished(events)

    async def follow(self, after: int | str = 0) -> AsyncGenerator[Event]:
        """Everything behind `after` and everything to come, until the session is closed."""
        reader = Reader(after)

        def connect(place: str) -> AsyncGenerator[Event]:
            return self._wire.follow(self.id, place)

        async with aclosing(resumed(connect, reader, self._wire.trying(), is_last)) as events:
            async for event in events:
                yield event


class OfTurn:
    """Which events are of the turn of the message `id`."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._turn: str | None = None

    async def only(self, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        async with aclosing(events):
            async for event in events:
                if self.has(event):
                    yield event

    def has(self, event: Event) -> bool:
        match event:
            case Accepted() if event.message.id == self._id:
                self._turn = event.turn
                return True
            case Denied():
                return event.id == self._id
            case SessionClosed():
                return True
            case _:
                return bool(self._turn) and event.turn == self._turn

    def ends(self, event: Event) -> bool:
        """Whether nothing more is to be expected of the turn."""
        match event:
            case Accepted():
                return event.message.id == self._id and not event.turn
            case Denied() | SessionClosed() | Completed() | Failed() | Interrupted():
                return True
            case _:
                return False


def is_last(event: Event) -> bool:
    return isinstance(event, SessionClosed)


async def finished(events: AsyncGenerator[Event]) -> Reply:
    """The reply that `events` of one turn end with. Raises what it failed with."""
    async for event in events:
        match event:
            case Completed():
                return Reply(turn=event.turn, seq=event.seq, **msgspec.structs.asdict(event.said))
            case Interrupted():
                return Reply(turn=event.turn, seq=event.seq, text=event.stopped.text, interrupted=True)
            case Failed():
                raise error_of(event.trouble.problem)
            case Denied():
                raise error_of(event.problem)
            case _:
                continue
    raise Conflict(
        "A person has this session, or it is closed: no agent replies.", next="Follow the session instead."
    )
