"""A WebSocket's beginning and end, with errors as the fleet's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from flotilla.client.calls import Calls, error_from, unreached
from flotilla.core.errors import FlotillaError, Refused, Unauthenticated, Unavailable

_ENDS = {1008: Refused, 4401: Unauthenticated, 4422: Refused}
"""Close codes after which coming back would not help."""


@asynccontextmanager
async def opened(calls: Calls, path: str) -> AsyncGenerator[ClientConnection]:
    """An open socket. Raises what the fleet refuses it with, `Unavailable` if it doesn't answer."""
    socket = await _open(calls, path)
    calls.sockets.add(socket)
    try:
        yield socket
    finally:
        calls.sockets.discard(socket)
        await socket.close()


async def _open(calls: Calls, path: str) -> ClientConnection:
    calls.check_open()
    limits = calls.limits
    try:
        return await connect(
            calls.url.replace("http", "ws", 1) + path,
            additional_headers={"Authorization": calls.credential.bearer()},
            compression=None,
            open_timeout=limits.connect_s,
            close_timeout=1.0,
            ping_interval=limits.ping_every_s,
            ping_timeout=limits.ping_every_s,
            max_size=limits.event_bytes_max,
            max_queue=limits.buffered_frames_max,
        )
    except InvalidStatus as error:
        answer = error.response
        raise error_from(answer.status_code, bytes(answer.body), answer.headers) from None
    except InvalidHandshake as error:
        raise Unavailable(f"{calls.url} opened no socket: {error}.") from None
    except TimeoutError:
        raise Unavailable(f"{calls.url} opened no socket in {limits.connect_s:g} s.") from None
    except OSError as error:
        raise unreached(calls.url, type(error).__name__) from None


def why_closed(closed: ConnectionClosed, told: FlotillaError | None) -> FlotillaError:
    """Why a socket was closed: what the fleet `told` just before, or what its code says."""
    code = closed.rcvd.code if closed.rcvd else 1006
    reason = closed.rcvd.reason if closed.rcvd else ""
    if told is not None:
        return told
    kind = _ENDS.get(code, Unavailable)
    return kind(f"The fleet closed the socket ({code} {reason or 'without a reason'}).")
