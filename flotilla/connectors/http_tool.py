"""A tool behind HTTP: the arguments are posted as JSON, the answer's JSON is the value.

The key travels as `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header). Declare a tool `keyed` only
if the other side honours it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2
import msgspec

from flotilla.core.errors import FlotillaError, Overloaded, Refused, Unavailable

TOO_EARLY = frozenset({408, 409, 425})  # 409: the first call under this key is still being done
DETAIL_CHARACTERS_MAX = 200


class HttpTool:
    """See `flotilla.core.tools.Tool`. Connections open with the first call; `close` ends them."""

    def __init__(
        self,
        name: str,
        *,
        description: str,
        schema: dict[str, Any],
        url: str,
        keyed: bool,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self.name = name
        self.description = description
        self.schema = schema
        self.keyed = keyed
        self._method, self._url = method, url
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._timeout_s = timeout_s
        self._http: httpx2.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"<HttpTool {self.name}: {self._method} {self._url}>"

    async def call(self, args: dict[str, Any], key: str) -> Any:
        headers = {**self._headers, "Idempotency-Key": key}
        try:
            answer = await self._client().request(
                self._method, self._url, content=msgspec.json.encode(args), headers=headers
            )
        except httpx2.HTTPError as error:
            raise Unavailable(f"The tool {self.name} can't be reached ({type(error).__name__}).") from None
        if not answer.is_success:
            raise self._error(answer)
        return self._value(answer)

    def _client(self) -> httpx2.AsyncClient:
        self._http = self._http or httpx2.AsyncClient(timeout=self._timeout_s)
        return self._http

    def _value(self, answer: httpx2.Response) -> Any:
        try:
            return msgspec.json.decode(answer.content) if answer.content else None
        except msgspec.DecodeError:
            raise Refused(f"The tool {self.name} answered with something else than JSON.") from None

    def _error(self, answer: httpx2.Response) -> FlotillaError:
        status = answer.status_code
        detail = f"The tool {self.name} answered {status}: {answer.text[:DETAIL_CHARACTERS_MAX]}"
        if status in (429, 503):
            return Overloaded(detail, retry_after_s=_retry_after_s(answer))
        if status >= 500 or status in TOO_EARLY:
            return Unavailable(detail, retry_after_s=_retry_after_s(answer))
        return Refused(detail)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()


def _retry_after_s(answer: httpx2.Response) -> float | None:
    """Seconds; a date is left out, as our clock need not be theirs."""
    after = answer.headers.get("Retry-After", "")
    return float(after) if after.isdecimal() else None
