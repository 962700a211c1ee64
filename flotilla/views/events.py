"""The journal as clients see it: each fact is one event of the wire (PROTOCOL, "Events")."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from flotilla.core.facts import (
    HandoffRequested,
    MessageAccepted,
    ReplyCompleted,
    ReplyFailed,
    ReplyInterrupted,
    ReplyStarted,
)
from flotilla.core.ledger import Recorded

_encode = msgspec.json.Encoder().encode


def event(recorded: Recorded) -> dict[str, Any]:
    """`{seq, type, turn?, at, data}`."""
    fact = recorded.fact
    turn = getattr(fact, "turn", None)
    return {
        "seq": recorded.seq,
        "type": fact.__struct_config__.tag,
        **({"turn": turn} if turn else {}),
        "at": stamp(recorded.at),
        "data": _data(fact),
    }


def stamp(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def _data(fact: Any) -> dict[str, Any]:
    match fact:
        case MessageAccepted():
            return {"id": fact.id, "text": fact.text}
        case ReplyStarted():
            names = [{"document": p.document, "passage": p.id, "title": p.title} for p in fact.passages]
            return {"model": fact.model, "passages": names, "similarity": fact.similarity}
        case ReplyCompleted():
            return _without_turn(fact)
        case ReplyFailed():
            return {"problem": msgspec.to_builtins(fact.problem)}
        case ReplyInterrupted():
            return {"text": fact.text}
        case HandoffRequested():
            return {"reason": fact.reason}
        case _:
            return _without_turn(fact)


def _without_turn(fact: Any) -> dict[str, Any]:
    names: tuple[str, ...] = fact.__struct_fields__
    return {name: msgspec.to_builtins(getattr(fact, name)) for name in names if name != "turn"}


# What travels from a host to a gateway: a header that says where the event belongs, a line break, and
# the event's JSON. It is encoded once, however many follow.


class Frame(msgspec.Struct, frozen=True):
    """An event on its way. `offset` and `length` (characters) are set for deltas alone.

    `id` is where its reader has come to with it, so that sending the id back goes on right behind it:
    the last durable `SEQ`, and behind text `SEQ:OFFSET` with the characters seen of the reply under way.
    """

    seq: int
    offset: int | None
    length: int
    json: bytes
    id: str = ""


def frame(recorded: Recorded) -> bytes:
    return b"%d\n%b" % (recorded.seq, _encode(event(recorded)))


def delta_frame(seq: int, turn: str, offset: int, text: str) -> bytes:
    """`seq` is that of the turn's `message.accepted`; `offset` counts the characters before `text`."""
    delta = {"seq": seq, "type": "reply.delta", "turn": turn, "data": {"offset": offset, "text": text}}
    return b"%d:%d:%d\n%b" % (seq, offset, len(text), _encode(delta))


def live_frame(seq: int, type: str, data: Any) -> bytes:
    """Of the moment and not of the record: whoever misses it misses nothing, and `seq` is that of the last
    fact. On its way it counts as a delta without characters, of an actor that says no text."""
    return b"%d:0:0\n%b" % (seq, _encode({"seq": seq, "type": type, "data": data}))


def rewound(seq: int, turn: str, offset: int) -> Frame:
    """Tells a client to cut the reply back to `offset` characters."""
    json = _encode({"seq": seq, "type": "reply.rewound", "turn": turn, "data": {"offset": offset}})
    return Frame(seq, offset, 0, json)


class _Said(msgspec.Struct, frozen=True):
    text: str = ""


class _End(msgspec.Struct, frozen=True):
    turn: str
    data: _Said


_open_end = msgspec.json.Decoder(_End).decode


def rest(end: bytes, offset: int) -> Frame | None:
    """What the end of a turn says of its text behind `offset` characters, as the delta that it would have been."""
    said = _open_end(end)
    text = said.data.text[offset:]
    if not text:
        return None
    seq = int(said.turn.rpartition("-")[2])  # a turn is named after its first message
    return parse_frame(delta_frame(seq, said.turn, offset, text))


def parse_frame(frame: bytes) -> Frame:
    header, _, json = frame.partition(b"\n")
    numbers = [int(number) for number in header.split(b":")]
    if len(numbers) == 1:
        return Frame(numbers[0], None, 0, json)
    return Frame(numbers[0], numbers[1], numbers[2], json)


class Envelope(msgspec.Struct, frozen=True):
    """The part of an event that gateways look at."""

    seq: int
    type: str
    turn: str | None = None


open_envelope = msgspec.json.Decoder(Envelope).decode


def type_of(frame: Frame) -> str:
    """Text on its way is not looked into; what is of the moment has no characters."""
    if frame.offset is not None and frame.length:
        return "reply.delta"
    return open_envelope(frame.json).type


TURN_ENDS = frozenset({"reply.completed", "reply.failed", "reply.interrupted"})
NOT_FOR_VISITORS = frozenset({"note.added", "swap.figures"})
"""What the customer never sees; where it was, the customer's numbers have a gap."""
