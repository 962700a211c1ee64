"""Limits while Valkey is down: each gateway counts by itself, with its share of every limit. Conversations go
on, and nobody gets more than the limit if they are spread evenly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from flotilla.core.access import Held, Quotas
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError
from flotilla.core.limits import LIMITS
from flotilla.core.policy.gcra import Quota, Taken, take

PATIENCE_S = 0.25  # a message waits no longer for its limit to be counted
AGAIN_S = 1.0

T = TypeVar("T")


class Fallback:
    """Implements `Quotas`: the shared ones, or, while they don't answer, this gateway's share of them."""

    def __init__(self, shared: Quotas, clock: Clock, log: Any, gateways: int) -> None:
        self._shared, self._clock, self._log, self._gateways = shared, clock, log, max(1, gateways)
        self._tats: dict[str, float] = {}
        self._down_until: float | None = None

    @property
    def down(self) -> bool:
        return self._down_until is not None

    async def take(self, subject: str, quota: Quota, wanted: int) -> Taken:
        return await self._either(
            lambda: self._shared.take(subject, quota, wanted), lambda: self._take(subject, quota, wanted)
        )

    async def hold(self, subject: str, holder: str, *, used: int, wanted: int, most: int) -> Held:
        share = max(1, most // self._gateways)
        return await self._either(
            lambda: self._shared.hold(subject, holder, used=used, wanted=wanted, most=most),
            lambda: Held(max(used, min(wanted, share)), 0),
        )

    async def _either(self, shared: Callable[[], Awaitable[T]], alone: Callable[[], T]) -> T:
        if self._down_until is not None and self._clock.monotonic() < self._down_until:
            return alone()
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await shared()
        except (FlotillaError, TimeoutError) as error:
            self._lost(error)
            return alone()
        self._found()
        return found

    def _take(self, subject: str, quota: Quota, wanted: int) -> Taken:
        if len(self._tats) > LIMITS.watched_subjects_max:
            self._tats.clear()
        taken, tat = take(
            quota.share(self._gateways), self._tats.get(subject, 0.0), self._clock.monotonic(), wanted
        )
        self._tats[subject] = tat
        return taken

    def _lost(self, error: Exception) -> None:
        """Said once, not for each message."""
        if self._down_until is None:
            reason = error.detail if isinstance(error, FlotillaError) else "no answer in time"
            self._log.warning("limits.not_shared", reason=reason, gateways=self._gateways)
        self._down_until = self._clock.monotonic() + AGAIN_S

    def _found(self) -> None:
        if self._down_until is not None:
            self._log.info("limits.shared_again")
            self._down_until = None
            self._tats.clear()
