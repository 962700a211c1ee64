"""Why a socket is closed, and what is said before."""

from __future__ import annotations

import msgspec

from flotilla.core.errors import FlotillaError

DONE = 1000
BAD_TEXT = 1007
POLICY = 1008
BROKEN = 1011
SERVICE_RESTART = 1012
TRY_AGAIN = 1013
UNAUTHENTICATED = 4401
REFUSED = 4422
_BY_STATUS = {401: UNAUTHENTICATED, 403: UNAUTHENTICATED, 429: TRY_AGAIN, 503: TRY_AGAIN, 504: TRY_AGAIN}


def of(error: FlotillaError) -> int:
    return _BY_STATUS.get(error.status, REFUSED)


def error_frame(error: FlotillaError, request_id: str, id: str | None = None) -> bytes:
    """`request_id` is that of the socket, `id` the message's that was refused."""
    name = {"id": id} if id is not None else {}
    problem = msgspec.structs.replace(error.problem(), request_id=request_id)
    return msgspec.json.encode({"type": "error", **name, "problem": problem})
