"""What is asked of a replica, read from the bodies of calls. Raises `Refused` for what can't be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from actors import frames
from flotilla.core.generation import Prompt
from flotilla.core.versions import Version

T = TypeVar("T")

_decode_prompt = msgspec.msgpack.Decoder(Prompt).decode
_decode_version = msgspec.msgpack.Decoder(Version).decode
_decode_id = msgspec.msgpack.Decoder(str).decode


def prompt(body: bytes) -> Prompt:
    return _read(_decode_prompt, body)


def version(body: bytes) -> Version:
    return _read(_decode_version, body)


def id(body: bytes) -> str:
    return _read(_decode_id, body)


def _read(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except msgspec.DecodeError as error:
        raise frames.unreadable(error) from error
