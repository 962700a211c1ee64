"""The web channel: what a browser says on its socket. Pure: text in, a message or an error out."""

from __future__ import annotations

import msgspec

from flotilla.core.agents import WhileTalking
from flotilla.core.errors import Refused


class _Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


class Message(_Frame, frozen=True, tag="message"):
    id: str
    text: str
    while_talking: WhileTalking | None = None


class Interrupt(_Frame, frozen=True, tag="interrupt"):
    pass


class Typing(_Frame, frozen=True, tag="typing"):
    pass


class Ping(_Frame, frozen=True, tag="ping"):
    pass


Frame = Message | Interrupt | Typing | Ping
_decode = msgspec.json.Decoder(Frame).decode


def parse(text: str) -> Frame:
    """Raises `Refused` for what can't be read, with the field if there is one."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        # msgspec ends its messages with the place: "… - at `$.text`"
        what, _, where = str(error).partition(" - at `$")
        field = where.rstrip("`").lstrip(".") or None
        raise Refused(
            f"This frame can't be read: {what}.",
            field=field,
            next='Send e.g. {"type": "message", "id": "c-1", "text": "…"}.',
        ) from None
