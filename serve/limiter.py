"""Bodies over the limit are refused before they are read into memory, and those that do not come; and every
body is JSON, also when a plain `curl -d` calls it a form. (The key in the header, not the type of the body,
guards against forgery.)"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flotilla.core.errors import FlotillaError, TooLarge, TooSlow
from flotilla.core.limits import LIMITS
from serve import openai_errors, problems

_FORM = {(b"content-type", b"application/x-www-form-urlencoded"): (b"content-type", b"application/json")}
READ_OUT_S = 1.0
READ_OUT_TIMES = 4  # the limit


class BodyLimit:
    """ASGI middleware. Documents may be larger than other bodies, and take longer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given: list[tuple[bytes, bytes]] = scope["headers"]
        headers = scope["headers"] = [_FORM.get(header, header) for header in given]
        body = _Body(receive, send, _limit(scope["path"]))
        declared = next((v for k, v in headers if k == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > body.limit:
            body.refused = _too_large(body.limit)
        else:
            await body.given_to(self._app, scope)
        if body.refused is not None and not body.answered:
            await body.read_out()
            await _response(scope["path"], body.refused)(scope, receive, send)
        return None


class _Body:
    """One request's, as it comes. What it is `refused` with goes before what the application makes of that."""

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive, self._send = receive, send
        self._size = 0
        self._whole = False
        self._until = asyncio.get_running_loop().time() + patience_s(limit)
        self.limit = limit
        self.refused: FlotillaError | None = None
        self.answered = False

    async def given_to(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._next, self._answer)
        except FlotillaError:
            if self.refused is None:
                raise

    async def _next(self) -> Message:
        if self._whole:  # what comes now is that the client hangs up
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise self._refuse(_too_slow(self.limit)) from None
        self._whole = not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        if self._size > self.limit:
            raise self._refuse(_too_large(self.limit))
        return message

    async def read_out(self) -> None:
        """Reads a little of what is still on its way, and drops it: a connection that is closed with unread bytes
        is reset, and its client may never see why."""
        until = min(self._until, asyncio.get_running_loop().time() + READ_OUT_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while not self._whole and self._size <= READ_OUT_TIMES * self.limit:
                    message = await self._receive()
                    self._whole = not message.get("more_body", False)
                    self._size += len(message.get("body", b""))

    def _refuse(self, error: FlotillaError) -> FlotillaError:
        self.refused = error
        return error

    async def _answer(self, message: Message) -> None:
        if self.refused is None or self.answered:
            self.answered = True
            await self._send(message)


def _limit(path: str) -> int:
    if path.startswith(openai_errors.PREFIX):
        return LIMITS.openai_body_bytes_max
    if path.startswith("/v1/models/"):
        return LIMITS.models_body_bytes_max
    return LIMITS.documents_body_bytes_max if path.endswith("/documents") else LIMITS.body_bytes_max


def patience_s(limit: int) -> float:
    return LIMITS.body_s + limit / LIMITS.body_bytes_per_s_least


def _response(path: str, error: FlotillaError) -> Response:
    """The connection ends with it: nobody reads the rest of the body."""
    if path.startswith(openai_errors.PREFIX):
        response = openai_errors.response(error)
    else:
        response = problems.response(error.problem())
    response.headers["Connection"] = "close"
    return response


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is over {limit} bytes.", field="body", next="Send less at once.")


def _too_slow(limit: int) -> TooSlow:
    said = f"The body was not there in {patience_s(limit):.0f} s."
    return TooSlow(said, field="body", next="Send it again, all at once.")
