"""Errors on the wire of gRPC and back: a status that follows the HTTP one, with the problem in its details."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc
import msgspec
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from flotilla.core.errors import (
    Conflict,
    DeadlinePassed,
    FlotillaError,
    Forbidden,
    LimitReached,
    NotFound,
    Problem,
    Refused,
    TooLarge,
    Unauthenticated,
    Unavailable,
    error_of,
)
from flotilla.rpc import v1_pb2 as pb

Code = grpc.StatusCode
DETAILS = "grpc-status-details-bin"
"""The metadata behind a call that has its google.rpc.Status."""
# Trailers are metadata, of which clients take 8 KiB; other alphabets need up to 9 bytes a character there.
MESSAGE_CHARACTERS_MAX = 200
WORD_CHARACTERS_MAX = 600
RETRY_AFTER_S = 1.0

_CODES: Mapping[int, grpc.StatusCode] = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    # Not ABORTED, which asks to be tried again: none of our conflicts goes away by itself.
    409: Code.FAILED_PRECONDITION,
    410: Code.NOT_FOUND,
    413: Code.RESOURCE_EXHAUSTED,  # as gRPC itself says of a message over its limit
    422: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
    508: Code.FAILED_PRECONDITION,
}
# Of a status without a problem, from gRPC or a proxy. UNKNOWN is a proxy's answer that is no gRPC: we send none.
# CANCELLED is a proxy's whose gateway died (RST_STREAM with CANCEL): a caller that cancels itself gets no answer.
_ERRORS: Mapping[grpc.StatusCode, type[FlotillaError]] = {
    Code.UNAVAILABLE: Unavailable,
    Code.UNKNOWN: Unavailable,
    Code.CANCELLED: Unavailable,
    Code.DEADLINE_EXCEEDED: DeadlinePassed,
    Code.UNAUTHENTICATED: Unauthenticated,
    Code.PERMISSION_DENIED: Forbidden,
    Code.NOT_FOUND: NotFound,
    Code.UNIMPLEMENTED: NotFound,
    Code.INVALID_ARGUMENT: Refused,
    Code.OUT_OF_RANGE: Refused,
    Code.FAILED_PRECONDITION: Conflict,
    Code.ALREADY_EXISTS: Conflict,
    Code.ABORTED: Conflict,
    Code.RESOURCE_EXHAUSTED: LimitReached,
}


def code_of(http_status: int) -> grpc.StatusCode:
    """What follows an HTTP status; INTERNAL for what has nothing of its own."""
    return _CODES.get(http_status, Code.INTERNAL)


def message_of(problem: Problem) -> str:
    """The status's message: what is wrong and the next move, cut short."""
    return _cut(str(error_of(problem)), MESSAGE_CHARACTERS_MAX)


def details_of(problem: Problem) -> bytes:
    """The google.rpc.Status of a problem, as `grpc-status-details-bin` carries it."""
    status = Status(code=code_of(problem.status).value[0], message=message_of(problem))
    status.details.add().Pack(_packed(problem))
    if problem.retry_after_s is not None:
        retry = RetryInfo()
        retry.retry_delay.FromNanoseconds(int(problem.retry_after_s * 1e9))
        status.details.add().Pack(retry)
    return status.SerializeToString()


def _packed(problem: Problem) -> pb.Problem:
    return pb.Problem(
        type=problem.type,
        title=problem.title,
        status=problem.status,
        detail=_cut(problem.detail, WORD_CHARACTERS_MAX),
        field=None if problem.field is None else _cut(problem.field, MESSAGE_CHARACTERS_MAX),
        next=None if problem.next is None else _cut(problem.next, WORD_CHARACTERS_MAX),
        retry_after_s=problem.retry_after_s,
    )


def _cut(text: str, characters_max: int) -> str:
    """Short enough, and writable: half a surrogate pair, which JSON lets through, has no UTF-8 form."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"


# -- back


def from_status(
    code: grpc.StatusCode, message: str, trailers: Iterable[tuple[str, str | bytes]]
) -> FlotillaError:
    """The error that a call's end stands for: that of its problem, else the one nearest to its status."""
    for name, value in trailers:
        if name == DETAILS and (problem := problem_of(value)):
            return error_of(problem)
    if code is Code.RESOURCE_EXHAUSTED and "larger than max" in message:
        return TooLarge(message, next="Send less at once.")
    kind = Unavailable if "RST_STREAM" in message else _ERRORS.get(code, FlotillaError)
    retry_after_s = RETRY_AFTER_S if kind is Unavailable else None
    return kind(message or code.name, retry_after_s=retry_after_s)


def from_rpc(error: grpc.RpcError) -> FlotillaError:
    """What a caught `RpcError` stands for, of grpc's synchronous and its asyncio client alike."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return FlotillaError(str(error))
    trailers = error.trailing_metadata() or ()
    return from_status(error.code() or Code.UNKNOWN, error.details() or "", trailers)


def problem_of(details: bytes | str) -> Problem | None:
    """The problem in a google.rpc.Status; None if there is none that can be read."""
    raw = details if isinstance(details, bytes) else details.encode()
    try:
        status, packed = Status.FromString(raw), pb.Problem()
        if not any(detail.Unpack(packed) for detail in status.details):
            return None
    except DecodeError:
        return None
    fields = {field.name: value for field, value in packed.ListFields()}
    return msgspec.convert({"title": "", "detail": "", "type": "", "status": 500} | fields, Problem)
