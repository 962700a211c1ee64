"""What reaches a session, and what it wants done: two closed sets.

A signal is something that happened. `session.on(signal)` answers with effects, in the order in
which they must be performed. Nothing here waits, and nothing here knows a socket.
"""

from __future__ import annotations

from typing import Any

import msgspec

from flotilla.core.errors import Problem
from flotilla.core.facts import Fact
from flotilla.core.generation import Prompt, Usage
from flotilla.core.knowledge import Hit


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="signal"):
    pass


# Signals from outside: each is answered with one `Answer`, or refused with an error.


class Open(_Message, frozen=True, tag="open"):
    agent: str
    channel: str = "api"
    customer: str | None = None
    metadata: dict[str, Any] = {}


class Post(_Message, frozen=True, tag="post"):
    """`id` is the client's own; a second `Post` of the same id is answered as the first and starts nothing.
    `waited_ms` is what the message has spent in the fleet before it got here."""

    id: str
    text: str
    waited_ms: float = 0.0


class Interrupt(_Message, frozen=True, tag="interrupt"):
    pass


class Close(_Message, frozen=True, tag="close"):
    pass


class Describe(_Message, frozen=True, tag="describe"):
    pass


# Signals from the work that a session has started.


class Found(_Message, frozen=True, tag="found"):
    turn: str
    hits: tuple[Hit, ...]
    retrieval_ms: float


class Streamed(_Message, frozen=True, tag="streamed"):
    turn: str
    text: str


class Generated(_Message, frozen=True, tag="generated"):
    turn: str
    usage: Usage


class Failed(_Message, frozen=True, tag="failed"):
    """Retrieval or generation gave up, after its retries."""

    turn: str
    problem: Problem


class Woken(_Message, frozen=True, tag="woken"):
    """The activation has just been folded from its journal. `said` is what the customer has already
    seen of the reply that was under way."""

    said: str


Ask = Open | Post | Interrupt | Close | Describe
Signal = Ask | Found | Streamed | Generated | Failed | Woken


# Effects.


class Record(_Message, frozen=True, tag="record"):
    """Append to the journal. Every effect listed after it depends on it.

    `unfinished`: whether there is work to go on with, should the host die right after it."""

    facts: tuple[Fact, ...]
    unfinished: bool


class Answer(_Message, frozen=True, tag="answer"):
    """Answer whoever sent the signal."""

    value: msgspec.Struct


class Retrieve(_Message, frozen=True, tag="retrieve"):
    turn: str
    collection: str
    query: str
    limit: int


class Generate(_Message, frozen=True, tag="generate"):
    turn: str
    prompt: Prompt


class Say(_Message, frozen=True, tag="say"):
    """Show the customer text: into the hot log, then to the followers. `offset` counts characters;
    `seq` is that of the turn's `message.accepted`."""

    turn: str
    seq: int
    offset: int
    text: str


class Stop(_Message, frozen=True, tag="stop"):
    """Cancel what runs for this turn."""

    turn: str


Effect = Record | Answer | Retrieve | Generate | Say | Stop


# What asks are answered with.


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """`seq` of the `message.accepted` event; `again` if the message was already there."""

    seq: int
    turn: str
    again: bool = False


class Interrupted(msgspec.Struct, frozen=True, kw_only=True):
    turn: str | None


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """A session as `GET /v1/sessions/{id}` shows it."""

    id: str
    state: str
    agent: str
    channel: str
    customer: str | None
    metadata: dict[str, Any]
    owner: str
    seq: int
