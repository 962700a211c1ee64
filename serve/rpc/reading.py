"""Requests read: whatever bytes come, the outcome is a message or an error that names the field."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from flotilla.core.errors import Refused, TooLarge
from flotilla.core.limits import LIMITS

M = TypeVar("M", bound=Message)


def read(type: type[M], body: bytes, bytes_max: int = LIMITS.body_bytes_max) -> M:
    """Raises `TooLarge`; `Refused` for bytes that are no such message (strings that aren't UTF-8, too), and for
    fields that the contract doesn't have."""
    if len(body) > bytes_max:
        raise TooLarge(
            f"The message has {len(body)} bytes; at most {bytes_max} fit.", field="body", next="Send less."
        )
    try:
        message = type.FromString(body)
    except DecodeError:
        raise Refused(
            f"This is no {type.DESCRIPTOR.full_name}: it can't be parsed, or a string in it is not UTF-8.",
            field="body",
            next="Send a message of flotilla/rpc/v1.proto.",
        ) from None
    _check_known(message)
    return message


def _check_known(message: Message) -> None:
    for field in UnknownFieldSet(message):
        name = message.DESCRIPTOR.full_name
        raise Refused(
            f"{name} has no field number {field.field_number}.",
            field=str(field.field_number),
            next="Leave it out, or use the .proto of this fleet's release.",
        )


def segment(field: str, value: str) -> str:
    """`value` as a part of a path. Raises `Refused` if it can be none."""
    if not value or "/" in value or len(value) > 256:
        raise Refused(f"`{field}` is no name.", field=field, next="Send the name as the fleet gave it.")
    return value
