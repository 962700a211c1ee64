"""What a session's journal holds: a closed set of facts. State is a fold of them.

Each fact is also a public event (PROTOCOL): the tag is the event's `type`, and `views.events`
turns the fact into the event's `data`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from flotilla.core.errors import Problem
from flotilla.core.generation import Usage
from flotilla.core.knowledge import Passage


class _Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    pass


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


class SessionOpened(_Fact, frozen=True, tag="session.opened"):
    agent: str
    channel: str = "api"
    customer: str | None = None
    metadata: dict[str, Any] = {}


class MessageAccepted(_Fact, frozen=True, tag="message.accepted"):
    turn: str
    id: str
    text: str


class ReplyStarted(_Fact, frozen=True, tag="reply.started"):
    """The passages are part of the record, so that any host rebuilds the very same prompt."""

    turn: str
    model: str
    passages: tuple[Passage, ...] = ()
    similarity: float = 0.0
    retrieval_ms: float = 0.0


class ReplyCompleted(_Fact, frozen=True, tag="reply.completed"):
    turn: str
    text: str
    model: str
    citations: tuple[Citation, ...] = ()
    usage: Usage = Usage()
    timing: Timing = Timing()
    confidence: float = 0.0
    offers_person: bool = False


class ReplyFailed(_Fact, frozen=True, tag="reply.failed"):
    turn: str
    problem: Problem


class ReplyInterrupted(_Fact, frozen=True, tag="reply.interrupted"):
    turn: str
    text: str


class HandoffRequested(_Fact, frozen=True, tag="handoff.requested"):
    turn: str
    reason: str


class SessionClosed(_Fact, frozen=True, tag="session.closed"):
    pass


Fact = (
    SessionOpened
    | MessageAccepted
    | ReplyStarted
    | ReplyCompleted
    | ReplyFailed
    | ReplyInterrupted
    | HandoffRequested
    | SessionClosed
)


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A fact in the journal: `seq` counts from 1 without gaps."""

    seq: int
    at: datetime
    fact: Fact
