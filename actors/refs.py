"""A reference to an actor: its name and the way there. It outlives every process."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, TypeVar

from flotilla.core.actor import Actor
from flotilla.core.effects import Message
from flotilla.core.errors import Refused
from flotilla.core.ids import ActorId
from flotilla.views.events import Frame

if TYPE_CHECKING:
    from actors.fleet import Fleet

A = TypeVar("A")


class ActorRef:
    """Make one with `fleet.ref(Counter, tenant, name)`. Nothing need exist yet under that name."""

    __slots__ = ("_fleet", "_kind", "id")

    def __init__(self, fleet: Fleet, kind: type[Actor], id: ActorId) -> None:
        self._fleet = fleet
        self._kind = kind.kind
        self.id = id

    def __repr__(self) -> str:
        return f"<ActorRef {self.id}>"

    async def ask(self, message: Message[A], *, timeout_s: float | None = None) -> A:
        """The answer, of the type that the message declares. Cancelling it reaches the actor.

        Raises what the actor refuses with; `DeadlinePassed` after `timeout_s`; `Unavailable` if nobody can
        say whether it was taken (a message that is `idempotent` is then sent again)."""
        return await self._fleet.ask(self.id, self._own(message), timeout_s=timeout_s)

    def tell(self, message: Message[Any]) -> None:
        """Sends it and doesn't wait: at most once."""
        self._fleet.tell(self.id, self._own(message))

    def stream(self, message: Message[Any]) -> AsyncGenerator[Any]:
        """Parts of the answer (`Part`), then the answer."""
        return self._fleet.stream(self.id, self._own(message))

    def follow(self, after: int = 0) -> AsyncGenerator[Frame]:
        """The actor's events with `seq > after`, live, over the death of hosts."""
        return self._fleet.follow(self.id, after)

    def _own(self, message: Message[A]) -> Message[A]:
        if not isinstance(message, self._kind.messages):
            raise Refused(
                f"A {self._kind.name} takes no {type(message).__name__}.",
                field="message",
                next="Send one of the messages that its kind declares.",
            )
        return message
