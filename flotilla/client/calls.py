"""HTTP to a fleet: calls that are tried again where that is safe, streams of events, errors as the fleet's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from random import Random
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec
from websockets.asyncio.client import ClientConnection

from flotilla.client.closing import closed
from flotilla.client.credential import Credential
from flotilla.client.limits import ClientLimits
from flotilla.client.sse import Unpacker
from flotilla.client.trying import OnRetry, Trying
from flotilla.core.clock import Clock
from flotilla.core.errors import (
    FlotillaError,
    LimitReached,
    Overloaded,
    Problem,
    Refused,
    Unauthenticated,
    Unavailable,
    error_of,
)
from flotilla.core.policy.retry import Patience

Query = Mapping[str, str | int | float | bool | None]
_OK = 300  # a proxy that sends us elsewhere is not the fleet's answer
_SAFE = frozenset({"GET", "PUT", "DELETE"})


class Unreached(Unavailable):
    """Nobody listens there: nothing was sent."""


class Calls:
    """The pool of connections to one fleet, and what every call of it has in common."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        patience: Patience,
        limits: ClientLimits,
        clock: Clock,
        random: Random,
        on_retry: OnRetry,
    ) -> None:
        self.url = _checked(url)
        self.credential = Credential(key, self._renewed, clock)
        self.limits = limits
        self.sockets: set[ClientConnection] = set()
        """Those that are open: they end with the client."""
        self._patience = patience
        self._clock = clock
        self._random = random
        self.on_retry = on_retry
        self._http = httpx2.AsyncClient(
            base_url=self.url,
            timeout=httpx2.Timeout(limits.answer_s, connect=limits.connect_s),
            limits=httpx2.Limits(max_connections=limits.connections_max, keepalive_expiry=30.0),
        )

    @property
    def key(self) -> str:
        """The API key, or the visitor's token as it is now."""
        return self.credential.value

    def trying(self) -> Trying:
        return Trying(
            self._patience,
            self._clock,
            self._random,
            self.credential,
            self.limits.dead_s,
            on_retry=self.on_retry,
        )

    def check_open(self) -> None:
        """Raises `Refused` for a client that was closed."""
        if self._http.is_closed:
            raise closed()

    async def aclose(self) -> None:
        await self.credential.aclose()
        await self._http.aclose()
        await asyncio.gather(*(socket.close() for socket in self.sockets))

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """The answer's JSON. `again` says that doing it twice is doing it once (of GET, PUT and DELETE that
        is so); anything else is only tried again if the fleet has done nothing. Raises what the fleet
        says is wrong, `Unavailable` if it doesn't answer."""
        timeout = httpx2.Timeout(timeout_s or self.limits.answer_s, connect=self.limits.connect_s)
        request = self._request(method, path, body, query=query, headers=headers, timeout=timeout)
        return await self._tried(request, self.trying(), method in _SAFE if again is None else again)

    async def _tried(self, request: httpx2.Request, trying: Trying, again: bool) -> Any:
        timeout_s = request.extensions["timeout"]["read"]
        while True:
            try:
                return await self._once(request, timeout_s)
            except FlotillaError as error:
                if not again and not isinstance(error, _NOTHING_DONE):
                    raise
                await trying.pause(error)

    async def _renewed(self, session: str) -> str:
        """Another token for the session. One that is refused is not renewed again: there is no end to that."""
        path, timeout = f"/v1/sessions/{quote(session, safe='')}/token", httpx2.Timeout(self.limits.answer_s)
        request = self._request("POST", path, None, headers=None, timeout=timeout)
        answer = await self._tried(request, Trying(self._patience, self._clock, self._random), True)
        return answer["token"]

    async def ready(self, timeout_s: float) -> Any:
        """What `/readyz` says, good or bad."""
        request = self._request("GET", "/readyz", None, headers=None, timeout=httpx2.Timeout(timeout_s))
        return _decoded((await self._answer(request, timeout_s)).content)

    async def _once(self, request: httpx2.Request, timeout_s: float) -> Any:
        answer = await self._answer(request, timeout_s)
        if answer.status_code >= _OK:
            raise error_from(answer.status_code, answer.content, answer.headers)
        return _decoded(answer.content)

    async def _send(self, request: httpx2.Request, *, stream: bool = False) -> httpx2.Response:
        self.check_open()
        request.headers["Authorization"] = self.credential.bearer()
        return await self._http.send(request, stream=stream)

    async def _answer(self, request: httpx2.Request, timeout_s: float) -> httpx2.Response:
        try:
            return await self._send(request)
        except httpx2.HTTPError as error:
            raise self._broken(error, f"{request.method} {request.url.path}", timeout_s) from None

    async def stream(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[bytes]:
        """The JSON of each event of an SSE stream, until it ends or is cut. Tries nothing again."""
        quiet = httpx2.Timeout(self.limits.quiet_s, connect=self.limits.connect_s)
        accept = {"Accept": "text/event-stream"}
        request = self._request(method, path, body, headers={**accept, **(headers or {})}, timeout=quiet)
        unpacker = Unpacker(self.limits.event_bytes_max)
        try:
            answer = await self._send(request, stream=True)
            try:
                if answer.status_code >= _OK:
                    raise error_from(answer.status_code, await answer.aread(), answer.headers)
                async for chunk in answer.aiter_bytes():
                    for event in unpacker.feed(chunk):
                        yield event
            finally:
                await answer.aclose()
        except httpx2.HTTPError as error:
            raise self._broken(error, f"{method} {path}", self.limits.quiet_s) from None

    def _request(
        self,
        method: str,
        path: str,
        body: Any,
        *,
        headers: Mapping[str, str] | None,
        timeout: httpx2.Timeout,
        query: Query | None = None,
    ) -> httpx2.Request:
        if not path.startswith("/"):  # another host's would get the key
            raise Refused(f"{path!r} is no path.", field="path", next="Begin it with a slash.")
        content = None if body is None else _encoded(body)
        sent = {"Content-Type": "application/json"} if content is not None else {}
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        return self._http.build_request(
            method,
            path,
            content=content,
            params=asked or None,
            headers={**sent, **(headers or {})},
            timeout=timeout,
        )

    def _broken(self, error: httpx2.HTTPError, what: str, timeout_s: float) -> Unavailable:
        match error:
            case httpx2.ConnectError() | httpx2.ConnectTimeout():
                return unreached(self.url, type(error).__name__)
            case httpx2.PoolTimeout():
                return Unavailable(
                    f"All {self.limits.connections_max} connections are in use.",
                    field="connections_max",
                    next="Close streams, or allow more.",
                )
            case httpx2.TimeoutException():
                return Unavailable(
                    f"{what} had no answer in {timeout_s:g} s.", next="Try again, or give it more time."
                )
            case _:
                return Unavailable(f"The connection broke during {what} ({type(error).__name__}).")


_NOTHING_DONE = (Unreached, Overloaded, LimitReached, Unauthenticated)


def unreached(url: str, why: str) -> Unreached:
    return Unreached(
        f"No fleet answers at {url} ({why}).", next="Start one with `make up`, or check the address."
    )


def _checked(url: str) -> str:
    try:
        if httpx2.URL(url).host and url.startswith(("http://", "https://")):
            return url.rstrip("/")
    except (httpx2.InvalidURL, ValueError):
        pass
    raise Refused(f"{url!r} is no address.", field="url", next="Write http://HOST:PORT.")


def _encoded(body: Any) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (TypeError, UnicodeEncodeError) as error:
        raise Refused(
            f"This can't be sent as JSON: {error}.", field="body", next="Send plain values."
        ) from None


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content) if content else None
    except msgspec.DecodeError as error:
        raise FlotillaError(
            f"The answer is no JSON: {error}.", next="Is there a fleet at this address?"
        ) from None


_BY_STATUS = {429: LimitReached, 502: Unavailable, 503: Unavailable, 504: Unavailable}


def error_from(status: int, content: bytes, headers: Mapping[str, str]) -> FlotillaError:
    """What the problem document says; a proxy in between has none."""
    after = headers.get("Retry-After", "")
    after_s = float(after) if after.isdecimal() else None
    try:
        error = error_of(msgspec.json.decode(content, type=Problem))
    except msgspec.DecodeError:
        said = content[:200].decode(errors="replace")
        error = _BY_STATUS.get(status, FlotillaError)(f"The fleet answered {status}: {said}")
    error.retry_after_s = error.retry_after_s or after_s
    return error
