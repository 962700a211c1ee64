"""A fleet, as an asynchronous program sees it."""

from __future__ import annotations

from random import Random
from types import TracebackType
from typing import Any, Self

from flotilla.client.calls import Calls
from flotilla.client.keys import Keys
from flotilla.client.knowledge import Knowledge
from flotilla.client.limits import LIMITS, PATIENCE, ClientLimits
from flotilla.client.models import Models
from flotilla.client.sessions import Sessions
from flotilla.client.trying import OnRetry, untold
from flotilla.core.clock import Clock, SystemClock
from flotilla.core.policy.retry import Patience

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_KEY = "dev"  # of a fleet on loopback
READY_S = 15.0


class AsyncClient:
    """`url` is the fleet's address, `key` an API key or a visitor's token, which is renewed by
    itself from the first call until the client is closed.

    `patience` is how long and how often a fleet that doesn't answer, or sheds load, is tried again;
    `on_retry` is told each error behind which it is."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        key: str = DEFAULT_KEY,
        *,
        patience: Patience = PATIENCE,
        limits: ClientLimits = LIMITS,
        clock: Clock | None = None,
        random: Random | None = None,
        on_retry: OnRetry = untold,
    ) -> None:
        clock, random = clock or SystemClock(), random or Random()
        self._calls = Calls(
            url, key, patience=patience, limits=limits, clock=clock, random=random, on_retry=on_retry
        )
        self.sessions = Sessions(self._calls, clock)
        self.knowledge = Knowledge(self._calls)
        self.models = Models(self._calls)
        self.keys = Keys(self._calls)

    @property
    def url(self) -> str:
        return self._calls.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._calls.aclose()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        again: bool | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Any call of the API: the answer's JSON. `again` says that doing it twice is doing it once."""
        return await self._calls.call(method, path, body, again=again, timeout_s=timeout_s)

    async def ready(self) -> dict[str, Any]:
        """What `/readyz` says of each dependency, good or bad. Asked once."""
        return await self._calls.ready(READY_S)
