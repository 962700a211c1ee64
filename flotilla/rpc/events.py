"""Events on the wire of gRPC and back. The text on its way and the finished reply, which every turn has, are
typed; what others tell stays the JSON that it is, and is not looked into."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from flotilla.core.facts import Citation, ReplyCompleted, Timing
from flotilla.core.generation import Usage
from flotilla.rpc import v1_pb2 as pb
from flotilla.views.events import Frame, stamp

DELTAS = ("reply.delta", "reply.rewound")
COMPLETED = "reply.completed"


class _Event(msgspec.Struct, frozen=True, gc=False):
    seq: int
    type: str
    turn: str = ""
    at: str = ""
    data: msgspec.Raw = msgspec.Raw(b"{}")


class _Delta(msgspec.Struct, frozen=True, gc=False):
    offset: int
    text: str = ""


_event = msgspec.json.Decoder(_Event).decode
_delta = msgspec.json.Decoder(_Delta).decode
_completed = msgspec.json.Decoder(dict[str, Any]).decode


def event_of(frame: Frame) -> pb.Event:
    """An event as `Send`, `Follow` and `Watch` stream it."""
    seq, _, offset = frame.id.partition(":")
    made = packed(frame.json)
    made.after, made.offset = int(seq or 0), int(offset or 0)
    return made


def packed(json: bytes) -> pb.Event:
    """An event without a place: its JSON in PROTOCOL's form."""
    event = _event(json)
    made = pb.Event(seq=event.seq, type=event.type, turn=event.turn)
    if event.at:
        made.at.CopyFrom(timestamp(event.at))
    if event.type in DELTAS:
        delta = _delta(event.data)
        made.delta.offset, made.delta.text = delta.offset, delta.text
    elif event.type == COMPLETED:
        made.reply.CopyFrom(pb.Reply(**_completed(event.data)))
    else:
        made.data = bytes(event.data)
    return made


def timestamp(text: str) -> Timestamp:
    """Of an RFC 3339 time."""
    made = Timestamp()
    made.FromDatetime(datetime.fromisoformat(text))
    return made


# -- back


def as_dict(event: pb.Event) -> dict[str, Any]:
    """The event as HTTP and WebSocket have it: `{seq, type, turn?, at?, data}`."""
    turn = {"turn": event.turn} if event.turn else {}
    at = {"at": rfc3339(event.at)} if event.HasField("at") else {}
    return {"seq": event.seq, "type": event.type, **turn, **at, "data": _data(event)}


def rfc3339(time: Timestamp) -> str:
    """In UTC with milliseconds."""
    return stamp(datetime.fromisoformat(time.ToJsonString()))


def place(event: pb.Event) -> str:
    """The event's id as SSE has it: `SEQ`, or `SEQ:OFFSET`."""
    return f"{event.after}:{event.offset}" if event.offset else str(event.after)


def _data(event: pb.Event) -> dict[str, Any]:
    if event.type == "reply.delta":
        return {"offset": event.delta.offset, "text": event.delta.text}
    if event.type == "reply.rewound":
        return {"offset": event.delta.offset}
    if event.HasField("reply"):
        return _reply(event.reply)
    return msgspec.json.decode(event.data or b"{}")


def _reply(reply: pb.Reply) -> dict[str, Any]:
    return {
        "text": reply.text,
        "model": reply.model,
        "citations": [_fields(citation, Citation) for citation in reply.citations],
        "usage": _fields(reply.usage, Usage),
        "timing": _fields(reply.timing, Timing),
        "confidence": reply.confidence,
        "offers_person": reply.offers_person,
    }


def _fields(message: Any, struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {name: getattr(message, name) for name in struct.__struct_fields__}


REPLY_FIELDS = tuple(name for name in ReplyCompleted.__struct_fields__ if name != "turn")
"""Each of them is one of pb.Reply: a test holds the two together."""
