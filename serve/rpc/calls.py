"""What a gRPC method is: its request, the HTTP call that it stands for, and its answer; or a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
from google.protobuf.message import Message
from starlette.requests import HTTPConnection

from flotilla.core.limits import LIMITS
from serve.rpc.inside import Http


class Unary(msgspec.Struct, frozen=True):
    """`answer` makes the response of the route's JSON."""

    request: type[Message]
    http: Callable[[Any], Http]
    answer: Callable[[dict[str, Any]], Message]
    bytes_max: int = LIMITS.body_bytes_max


class Stream(msgspec.Struct, frozen=True):
    request: type[Message]
    events: Callable[[HTTPConnection, Any], AsyncGenerator[Message]]


def fields(request: Message, *names: str) -> dict[str, Any]:
    """The optional fields of a request that are set."""
    return {name: getattr(request, name) for name in names if request.HasField(name)}
