"""What a conversation tells its clients: a closed union of typed events (PROTOCOL, "Events").

Durable events have a `seq` that counts from 1, and the time `at`. Text on its way (`Delta`, `Rewound`) has the
`seq` of its turn's `Accepted`. A type that this release doesn't know is an `Other`: ignore it. So are fields that it
doesn't know.
"""

from __future__ import annotations

from typing import Any

import msgspec

from flotilla.core.errors import Problem, Undecodable
from flotilla.core.facts import Citation, Timing
from flotilla.core.generation import Usage


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", gc=False):
    seq: int
    turn: str = ""
    at: str = ""


# What events say.


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """`id` is the sender's own."""

    id: str
    text: str
    by: str = ""


class Piece(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`offset` counts the characters (code points) of the reply before `text`."""

    offset: int
    text: str = ""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A passage that the reply may rest on."""

    document: str
    passage: str
    title: str = ""


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    model: str = ""
    passages: tuple[Source, ...] = ()
    similarity: float = 0.0


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A whole reply."""

    text: str
    model: str = ""
    citations: tuple[Citation, ...] = ()
    usage: Usage = Usage()
    timing: Timing = Timing()
    confidence: float = 0.0
    offers_person: bool = False


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """What had been said by then."""

    text: str = ""


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    problem: Problem


class Handoff(msgspec.Struct, frozen=True, kw_only=True):
    reason: str = ""
    person: str = ""


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    agent: str
    channel: str = ""
    customer: str | None = None
    metadata: dict[str, Any] = {}
    model: str = ""


# The events.


class Opened(_Event, frozen=True, kw_only=True, tag="session.opened"):
    opening: Opening = msgspec.field(name="data")


class Accepted(_Event, frozen=True, kw_only=True, tag="message.accepted"):
    """The message is in the record. `turn` is "" for one that a person answers."""

    message: Message = msgspec.field(name="data")


class Started(_Event, frozen=True, kw_only=True, tag="reply.started"):
    beginning: Beginning = msgspec.field(name="data")


class Delta(_Event, frozen=True, kw_only=True, tag="reply.delta", gc=False):
    piece: Piece = msgspec.field(name="data")

    @property
    def text(self) -> str:
        return self.piece.text

    @property
    def offset(self) -> int:
        return self.piece.offset


class Rewound(_Event, frozen=True, kw_only=True, tag="reply.rewound"):
    """Cut the reply back to its first `offset` characters before going on."""

    piece: Piece = msgspec.field(name="data")

    @property
    def offset(self) -> int:
        return self.piece.offset


class Completed(_Event, frozen=True, kw_only=True, tag="reply.completed"):
    said: Said = msgspec.field(name="data")


class Failed(_Event, frozen=True, kw_only=True, tag="reply.failed"):
    trouble: Trouble = msgspec.field(name="data")


class Interrupted(_Event, frozen=True, kw_only=True, tag="reply.interrupted"):
    stopped: Stopped = msgspec.field(name="data")


class PersonWanted(_Event, frozen=True, kw_only=True, tag="handoff.requested"):
    handoff: Handoff = msgspec.field(name="data")


class PersonCame(_Event, frozen=True, kw_only=True, tag="handoff.accepted"):
    handoff: Handoff = msgspec.field(name="data")


class PersonLeft(_Event, frozen=True, kw_only=True, tag="handoff.returned"):
    handoff: Handoff = msgspec.field(name="data")


class PersonSpoke(_Event, frozen=True, kw_only=True, tag="message.sent"):
    message: Message = msgspec.field(name="data")


class Noted(_Event, frozen=True, kw_only=True, tag="note.added"):
    message: Message = msgspec.field(name="data")


class Closed(_Event, frozen=True, kw_only=True, tag="session.closed"):
    """The last event of a session."""


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """On a socket alone: the message `id` was refused, and saying it again won't help. It is in no record."""

    id: str
    problem: Problem
    seq: int = 0
    turn: str = ""
    at: str = ""


class Other(msgspec.Struct, frozen=True, kw_only=True):
    """Of a type that this release doesn't know. Without `at` it is of the moment, and in no record."""

    type: str
    seq: int = 0
    turn: str = ""
    at: str = ""
    data: Any = None


Known = (
    Opened
    | Accepted
    | Started
    | Delta
    | Rewound
    | Completed
    | Failed
    | Interrupted
    | PersonWanted
    | PersonCame
    | PersonLeft
    | PersonSpoke
    | Noted
    | Closed
)
Event = Known | Denied | Other
TurnEnd = Completed | Failed | Interrupted

_decode = msgspec.json.Decoder(Known).decode
_decode_other = msgspec.json.Decoder(Other).decode
_KNOWN = frozenset(str(kind.__struct_config__.tag) for kind in Known.__args__)


def read(json: bytes | str) -> Known | Other:
    """The event. Raises `Undecodable` for what is none."""
    try:
        return _decode(json)
    except msgspec.DecodeError as why:
        try:
            return _unknown(_decode_other(json), why)
        except msgspec.DecodeError:
            raise _undecodable(why) from None


def convert(value: Any) -> Known | Other:
    """The same, of JSON that is decoded already."""
    try:
        return msgspec.convert(value, Known)
    except msgspec.ValidationError as why:
        try:
            return _unknown(msgspec.convert(value, Other), why)
        except msgspec.ValidationError:
            raise _undecodable(why) from None


def _unknown(other: Other, why: Exception) -> Other:
    """Raises `Undecodable` for an event of a known type that doesn't look like one."""
    if other.type in _KNOWN:
        raise _undecodable(why)
    return other


def _undecodable(why: Exception) -> Undecodable:
    return Undecodable(
        f"The fleet sent an event that can't be read: {why}.", next="Use the client of its release."
    )
