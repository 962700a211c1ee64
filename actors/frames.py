"""What is said on the links of a fleet: the bodies of calls and of items."""

from __future__ import annotations

from typing import Any, cast, get_args

import msgspec

from flotilla.core.calls import Call
from flotilla.core.effects import Due, Message
from flotilla.core.errors import FlotillaError, Refused
from flotilla.core.ids import ActorId


class AskFrame(msgspec.Struct, frozen=True, array_like=True):
    """`hops`: how many hosts have passed it on. One that was sent here by another host is taken."""

    actor: ActorId
    message: bytes
    call: Call = Call()
    hops: int = 0


class DueFrame(msgspec.Struct, frozen=True, array_like=True):
    actor: ActorId
    due: Due
    hops: int = 0


class FollowFrame(msgspec.Struct, frozen=True, array_like=True):
    """Everything of `actor` with `seq > after`; of the reply that was under way at `after`, the text from
    character `offset` on."""

    actor: ActorId
    after: int
    offset: int = 0
    hops: int = 0


class ReplayFrame(msgspec.Struct, frozen=True, array_like=True):
    """The message of the dead letter `letter`, as it was set aside."""

    actor: ActorId
    letter: str
    message: bytes
    hops: int = 0


encode = msgspec.msgpack.Encoder().encode
decode_ask = msgspec.msgpack.Decoder(AskFrame).decode
decode_due = msgspec.msgpack.Decoder(DueFrame).decode
decode_follow = msgspec.msgpack.Decoder(FollowFrame).decode
decode_replay = msgspec.msgpack.Decoder(ReplayFrame).decode
decode_actor = msgspec.msgpack.Decoder(ActorId).decode

_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {}


def decode_answer(message: Message[Any], body: bytes) -> Any:
    """The answer, as the type that the message's class declares: `class Add(Message[int])`."""
    decoder = _decoders.get(type(message))
    if decoder is None:
        decoder = _decoders[type(message)] = msgspec.msgpack.Decoder(answer_type(type(message)))
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise FlotillaError(f"The answer to {type(message).__name__} can't be read: {error}.") from error


def answer_type(message: type) -> Any:
    bases = cast(tuple[Any, ...], getattr(message, "__orig_bases__", ()))
    found = [args[0] for base in bases if (args := get_args(base))]
    return found[0] if found else Any


def encode_message(message: Message[Any]) -> bytes:
    """Raises `Refused` for a message with something in it that can't travel."""
    try:
        return encode(message)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
        said = f"A {type(message).__name__} can't be sent: {error}."
        raise Refused(said, field="message", next="Send what its class declares.") from error


def unreadable(error: msgspec.DecodeError) -> Refused:
    """A message that its kind can't read. msgspec says where: `… - at `$.n``."""
    said, _, where = str(error).partition(" - at `$")
    field = where.strip("`.") or None
    return Refused(f"The message can't be read: {said}.", field=field, next="Send what its kind declares.")
