"""Bodies over the limit are refused before they are read into memory; and every body is JSON, also when a
plain `curl -d` calls it a form. (The key in the header, not the type of the body, guards against forgery.)"""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flotilla.core.errors import TooLarge
from flotilla.core.limits import LIMITS
from serve import openai_errors, problems

_FORM = {(b"content-type", b"application/x-www-form-urlencoded"): (b"content-type", b"application/json")}


class BodyLimit:
    """ASGI middleware. Documents may be larger than other bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given: list[tuple[bytes, bytes]] = scope["headers"]
        headers = scope["headers"] = [_FORM.get(header, header) for header in given]
        limit = _limit(scope["path"])
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                raise _too_large(limit)
            return message

        declared = next((v for k, v in headers if k == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > limit:
            return await _refusal(scope["path"], limit)(scope, receive, send)
        return await self._app(scope, counted, send)


def _limit(path: str) -> int:
    if path.startswith(openai_errors.PREFIX):
        return LIMITS.openai_body_bytes_max
    if path.startswith("/v1/models/"):
        return LIMITS.models_body_bytes_max
    return LIMITS.documents_body_bytes_max if path.endswith("/documents") else LIMITS.body_bytes_max


def _refusal(path: str, limit: int) -> Response:
    if path.startswith(openai_errors.PREFIX):
        return openai_errors.response(_too_large(limit))
    return problems.response(_too_large(limit).problem())


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is over {limit} bytes.", field="body", next="Send less at once.")
