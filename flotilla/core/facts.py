"""What a session's journal holds: a closed set of facts. State is a fold of them.

Each fact is also a public event (PROTOCOL): the tag is the event's `type`, and `views.events`
turns the fact into the event's `data`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from flotilla.core import actor
from flotilla.core.errors import Problem
from flotilla.core.generation import Usage
from flotilla.core.knowledge import Passage


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """`quote` stands word for word in the passage; `start` and `end` are the characters of the reply
    (Unicode code points, end excluded) that it supports."""

    document: str
    passage: str
    quote: str
    start: int
    end: int
    title: str = ""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of one turn. `queued + retrieval + prompt + first_token + generation` and the
    remainder of `overhead` make `total`; `overhead` is `total - retrieval - first_token - generation`."""

    queued: float = 0.0
    retrieval: float = 0.0
    prompt: float = 0.0
    first_token: float = 0.0
    generation: float = 0.0
    total: float = 0.0
    overhead: float = 0.0


class SessionOpened(actor.Fact, frozen=True, kw_only=True, tag="session.opened"):
    """`model` is the model or version that it is pinned to; "" for the agent's own."""

    agent: str
    channel: str = "api"
    customer: str | None = None
    metadata: dict[str, Any] = {}
    model: str = ""


class MessageAccepted(actor.Fact, frozen=True, kw_only=True, tag="message.accepted"):
    """A message of the customer. Several may have the same turn: they get one reply. `turn` is "" for one
    that a person answers."""

    turn: str
    id: str
    text: str


class ReplyStarted(actor.Fact, frozen=True, kw_only=True, tag="reply.started"):
    """The passages are part of the record, so that any host rebuilds the very same prompt. A reply that
    is begun again with one more message is started again: the last one counts. `model` is the id of the
    version that is to answer, which it stays with over crashes; `team:KIND` where a team answers."""

    turn: str
    model: str
    passages: tuple[Passage, ...] = ()
    similarity: float = 0.0
    retrieval_ms: float = 0.0


class ReplyCompleted(actor.Fact, frozen=True, kw_only=True, tag="reply.completed"):
    turn: str
    text: str
    model: str
    citations: tuple[Citation, ...] = ()
    usage: Usage = Usage()
    timing: Timing = Timing()
    confidence: float = 0.0
    offers_person: bool = False


class ReplyFailed(actor.Fact, frozen=True, kw_only=True, tag="reply.failed"):
    turn: str
    problem: Problem


class ReplyInterrupted(actor.Fact, frozen=True, kw_only=True, tag="reply.interrupted"):
    turn: str
    text: str


class HandoffRequested(actor.Fact, frozen=True, kw_only=True, tag="handoff.requested"):
    """`turn` is "" if nobody said so in a message."""

    turn: str = ""
    reason: str


class HandoffAccepted(actor.Fact, frozen=True, kw_only=True, tag="handoff.accepted"):
    """A person has taken over: no word of the agent comes behind this before `handoff.returned`."""

    person: str


class HandoffReturned(actor.Fact, frozen=True, kw_only=True, tag="handoff.returned"):
    person: str


class MessageSent(actor.Fact, frozen=True, kw_only=True, tag="message.sent"):
    """A message of the person who has taken over."""

    by: str
    id: str
    text: str


class NoteAdded(actor.Fact, frozen=True, kw_only=True, tag="note.added"):
    """For other persons and programs: never sent to the customer, nor to a model."""

    by: str
    id: str
    text: str


class SessionClosed(actor.Fact, frozen=True, kw_only=True, tag="session.closed"):
    pass


Fact = (
    SessionOpened
    | MessageAccepted
    | ReplyStarted
    | ReplyCompleted
    | ReplyFailed
    | ReplyInterrupted
    | HandoffRequested
    | HandoffAccepted
    | HandoffReturned
    | MessageSent
    | NoteAdded
    | SessionClosed
)
