"""Every answer carries `X-Request-Id`: the client's own, if it is a name, or one made here. It is in problem
documents and traces too, and beside what is logged of a request."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flotilla.core.ids import is_name, new_id
from serve.limits.headers import rate_headers

HEADER = "x-request-id"
# Only to be read while a request is answered: tasks that outlive it inherit it.
_current: ContextVar[str] = ContextVar("request_id", default="")
_unsaid: ContextVar[str] = ContextVar("request_id_unsaid", default="")


def request_id() -> str:
    """Of the request that is being answered; "" outside of one."""
    return _current.get()


def unsaid_id() -> str:
    """The same for whoever answers outside of this middleware; "" if the server adds it to every answer."""
    return _unsaid.get()


class RequestIds:
    """ASGI middleware, the outermost. `told` if the server adds `X-Request-Id` by itself, as Ray Serve does: it
    has put the id into the request, too. The middleware also tells where the caller stands with its limits, if
    a route has put that into `request.state.standings`."""

    def __init__(self, app: ASGIApp, *, told: bool = False) -> None:
        self._app = app
        self._told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        state: dict[str, Any] = scope.setdefault("state", {})
        id = state["request_id"] = id_of(Headers(scope=scope).get(HEADER, ""))
        _current.set(id)
        unsaid = id if not self._told or "flotilla.inside" in scope else ""
        _unsaid.set(unsaid)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add(message, unsaid, state.get("standings", ()))
            elif message["type"] == "websocket.accept":  # to which no server adds it
                _add(message, id, ())
            await send(message)

        return await self._app(scope, receive, with_headers)


def id_of(given: str) -> str:
    """The client's own, or one made here."""
    return given if is_name(given) else new_id("req")


def _add(message: Message, id: str, standings: Sequence[Any]) -> None:
    headers = MutableHeaders(scope=message)
    if id:
        headers[HEADER] = id
    headers.update(rate_headers(standings))
