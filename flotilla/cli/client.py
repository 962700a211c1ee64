"""The commands' way to a running fleet: HTTP, with errors as the fleet's own."""

from __future__ import annotations

import os
from typing import Any

import httpx2
import msgspec

from flotilla.cli.local import Local
from flotilla.core.errors import FlotillaError, Problem, Unavailable, error_of

TIMEOUT_S = 300.0


class Client:
    """`FLOTILLA_URL` and `FLOTILLA_KEY` name a fleet elsewhere; without them it is this machine's."""

    def __init__(self, url: str | None = None, key: str | None = None) -> None:
        self.url = url or os.environ.get("FLOTILLA_URL") or _local_address()
        self.key = key or os.environ.get("FLOTILLA_KEY", "dev")
        self._http = httpx2.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=TIMEOUT_S
        )

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON. Raises what the fleet says is wrong."""
        content = None if body is None else msgspec.json.encode(body)
        try:
            answer = self._http.request(
                method, path, content=content, headers={"Content-Type": "application/json"}
            )
        except httpx2.HTTPError as error:
            raise _no_fleet(self.url, error) from None
        if answer.status_code >= 400:
            raise _error(answer)
        return msgspec.json.decode(answer.content) if answer.content else None

    def ready(self) -> dict[str, Any]:
        """What `/readyz` says, good or bad."""
        try:
            return msgspec.json.decode(self._http.get("/readyz", timeout=15.0).content)
        except (httpx2.HTTPError, msgspec.DecodeError) as error:
            raise _no_fleet(self.url, error) from None


def _local_address() -> str:
    run = Local().run
    return run.address if run else f"http://127.0.0.1:{os.environ.get('FLOTILLA_PORT', '8080')}"


def _no_fleet(url: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"No fleet answers at {url} ({type(error).__name__}).",
        next="Start one with `make up`, or set FLOTILLA_URL.",
    )


def _error(answer: httpx2.Response) -> FlotillaError:
    try:
        return error_of(msgspec.json.decode(answer.content, type=Problem))
    except msgspec.DecodeError:
        return FlotillaError(f"The fleet answered {answer.status_code}: {answer.text[:200]}")
