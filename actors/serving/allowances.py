"""Who may go on using tokens: the sums of the ledger, kept at hand for a few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import msgspec

from actors.serving.charging import Opening
from flotilla.core.charges import Charge
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError
from flotilla.core.policy.allowance import Allowance, Left, check, left

FRESH_S = 10.0


class _Seen(msgspec.Struct):
    """Tokens of a tenant, as the ledger said at `at` and with what was charged here since."""

    day: date
    today: int
    month: int
    at: float


class Allowances:
    """Bounds by tenant, `default` for the others. Only tenants with a bound cost a look into the ledger."""

    def __init__(
        self,
        opening: Opening,
        clock: Clock,
        log: Any,
        *,
        default: Allowance | None = None,
        tenants: Mapping[str, Allowance] | None = None,
    ) -> None:
        self._opening = opening
        self._clock = clock
        self._log = log
        self._default = default or Allowance()
        self._tenants = dict(tenants or {})
        self._seen: dict[str, _Seen] = {}  # no more than there are tenants with keys
        self._looking: dict[str, asyncio.Lock] = {}

    def of(self, tenant: str) -> Allowance:
        return self._tenants.get(tenant, self._default)

    async def check(self, tenant: str) -> Left | None:
        """What is left; None without a bound. Raises `LimitReached` if nothing is.

        While the ledger is out of reach the last sums count; a tenant that was never looked up is let
        through: an outage of the ledger is not one of the models."""
        allowance = self.of(tenant)
        if not allowance.bounded:
            return None
        seen = await self._look(tenant)
        now = self._clock.now()
        rest = left(allowance, today=seen.today, month=seen.month, now=now)
        check(rest)
        return rest

    def heard(self, charge: Charge) -> None:
        """Counts what the ledger doesn't know yet."""
        if seen := self._seen.get(charge.tenant):
            seen.today += charge.tokens
            seen.month += charge.tokens

    async def _look(self, tenant: str) -> _Seen:
        async with self._looking.setdefault(tenant, asyncio.Lock()):
            seen, today = self._seen.get(tenant), self._clock.now().date()
            fresh = seen is not None and self._clock.monotonic() - seen.at < FRESH_S and seen.day == today
            if seen is None or not fresh:
                seen = self._seen[tenant] = await self._read(tenant, today, seen)
            return seen

    async def _read(self, tenant: str, today: date, before: _Seen | None) -> _Seen:
        try:
            ledger = await self._opening()
            days = await ledger.usage(tenant, today.replace(day=1), today + timedelta(days=1), "day")
        except FlotillaError as error:
            self._log.warning("allowance.unknown", tenant=tenant, reason=error.detail)
            return self._carried(before, today)
        return _Seen(
            day=today,
            today=sum(day.tokens for day in days if day.name == today.isoformat()),
            month=sum(day.tokens for day in days),
            at=self._clock.monotonic(),
        )

    def _carried(self, before: _Seen | None, today: date) -> _Seen:
        """The last sums, as far as they are of this day and this month."""
        now = self._clock.monotonic()
        if before is None or (before.day.year, before.day.month) != (today.year, today.month):
            return _Seen(day=today, today=0, month=0, at=now)
        kept = before.today if before.day == today else 0
        return _Seen(day=today, today=kept, month=before.month, at=now)
