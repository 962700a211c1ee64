"""What reaches a session, and what it wants done, beyond what every kind has (flotilla.core.effects).

A signal is something that happened. `session.on(signal)` answers with effects, in the order in
which they must be performed. Nothing here waits, and nothing here knows a socket.

Work and what it reports carry two names: `turn`, for the record and the customer, and `run`, the turn's
name for this attempt. A reply that is begun again with one more message keeps its turn and gets another
run, so that what the stopped search or model still has to say is not taken for the new one's.
"""

from __future__ import annotations

from typing import Any, Self

import msgspec

from flotilla.core.agents import WhileTalking
from flotilla.core.effects import Answered, Message, Signal, Step, Woken, Work
from flotilla.core.errors import Problem
from flotilla.core.generation import Prompt, Usage
from flotilla.core.knowledge import Hit

# What messages are answered with.


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """`seq` of the event that the message became; `again` if it was already there. `turn` is "" if no
    agent answers it: a person has taken over, or has written it."""

    seq: int
    turn: str
    again: bool = False


class Interrupted(msgspec.Struct, frozen=True, kw_only=True):
    turn: str | None


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """A session as `GET /v1/sessions/{id}` shows it. `handoff` is "", "requested" or "accepted"; then
    `person` says by whom."""

    id: str
    state: str
    agent: str
    channel: str
    customer: str | None
    metadata: dict[str, Any]
    owner: str
    seq: int
    handoff: str = ""
    person: str | None = None


# Messages of the customer and of programs.


class Open(Message[SessionView], frozen=True, kw_only=True, tag="open"):
    idempotent = True
    sheddable = True
    agent: str
    channel: str = "api"
    customer: str | None = None
    metadata: dict[str, Any] = {}
    model: str = ""


class Post(Message[Accepted], frozen=True, kw_only=True, tag="post"):
    """`id` is the client's own; a second `Post` of the same id is answered as the first and starts nothing.
    `waited_ms` is what the message has spent in the fleet before it got here. `while_talking` overrules
    the agent's own way with a message that comes while it talks. `model` is the version that is to answer
    if nothing has to be looked up first: whoever hosts the session fills it in."""

    idempotent = True
    sheddable = True
    id: str
    text: str
    waited_ms: float = 0.0
    while_talking: WhileTalking | None = None
    model: str = ""


class Interrupt(Message[Interrupted], frozen=True, tag="interrupt"):
    """Not idempotent: a second one would stop the next reply."""

    control = True


class Close(Message[SessionView], frozen=True, tag="close"):
    control = True
    idempotent = True


class Typing(Message[None], frozen=True, kw_only=True, tag="typing"):
    """Somebody is writing, seen by whoever follows just now: the customer, if it is a `visitor`."""

    visitor: bool


class Describe(Message[SessionView], frozen=True, tag="describe"):
    idempotent = True


# A person takes over. Persons are called by the names that their desk knows them by.


class RequestPerson(Message[SessionView], frozen=True, kw_only=True, tag="person.request"):
    """Asks for a person; the agent goes on until one accepts."""

    idempotent = True
    reason: str = ""


class Accept(Message[SessionView], frozen=True, kw_only=True, tag="person.accept"):
    """`person` has the conversation from now on: the agent falls silent at once."""

    control = True
    idempotent = True
    person: str


class Return(Message[SessionView], frozen=True, kw_only=True, tag="person.return"):
    """The agent answers what comes from now on."""

    idempotent = True
    person: str


class Speak(Message[Accepted], frozen=True, kw_only=True, tag="person.speak"):
    """What `person` says to the customer; `id` as in `Post`."""

    idempotent = True
    person: str
    id: str
    text: str


class Note(Message[Accepted], frozen=True, kw_only=True, tag="person.note"):
    """What `person` writes down, and the customer never sees; `id` as in `Post`."""

    idempotent = True
    person: str
    id: str
    text: str


# Signals from the work that a session has started.


class Found(Signal, frozen=True, kw_only=True, tag="found"):
    """`model` is the id of the version that is to answer now; "" if nobody knows yet."""

    turn: str
    run: str
    hits: tuple[Hit, ...]
    retrieval_ms: float
    model: str = ""


class Streamed(Signal, frozen=True, kw_only=True, tag="streamed"):
    """`model` is the id of the version that makes the reply, with its first words; "" if nobody says."""

    turn: str
    run: str
    text: str
    model: str = ""

    def joined(self, later: Signal) -> Self | None:
        if not isinstance(later, Streamed) or later.run != self.run:
            return None
        return msgspec.structs.replace(self, text=self.text + later.text, model=self.model or later.model)


class Generated(Signal, frozen=True, kw_only=True, tag="generated"):
    """`model` is the id of the version that made it; "" if nobody says."""

    turn: str
    run: str
    usage: Usage
    model: str = ""


class Failed(Signal, frozen=True, kw_only=True, tag="failed"):
    """Retrieval or generation gave up, after its retries."""

    turn: str
    run: str
    problem: Problem


Posted = Open | Post | Interrupt | Close | Describe | Typing
Handed = RequestPerson | Accept | Return | Speak | Note
Worked = Found | Streamed | Generated | Failed | Answered
Ask = Posted | Handed
Heard = Ask | Worked | Woken


# Effects.


class Say(Step, frozen=True, kw_only=True):
    """Show the customer text: into the hot log, then to the followers. `offset` counts characters;
    `seq` is that of the turn's first `message.accepted`."""

    turn: str
    seq: int
    offset: int
    text: str


class Mention(Step, frozen=True, kw_only=True):
    """Show whoever follows just now something that is not for the record."""

    type: str
    data: dict[str, Any]


class Seal(Step, frozen=True, kw_only=True):
    """Close the hot log of a turn that is ended before its reply is whole: nobody shows a word of it
    from now on, not even a host that was declared dead and doesn't know yet."""

    turn: str


class Unshown(Step, frozen=True, kw_only=True):
    """Nobody has shown a word of the turn's reply yet, and from here on nobody does but for `model`. Where somebody
    has, that reply is gone on with, by whom it was begun: `Conflict`."""

    turn: str
    model: str


class Retrieve(Work, frozen=True, kw_only=True):
    early = True
    turn: str
    run: str
    collection: str
    query: str
    limit: int

    @property
    def key(self) -> str:
        return self.run


class Generate(Work, frozen=True, kw_only=True):
    early = True
    turn: str
    run: str
    prompt: Prompt

    @property
    def key(self) -> str:
        return self.run
