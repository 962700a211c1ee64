"""What stands at every door of a gateway: keys, their revocations, and limits."""

from __future__ import annotations

import asyncio
from typing import Any

from flotilla.core.access import Notices, Quotas
from flotilla.core.clock import Clock
from serve.keys import Keys, Opening
from serve.limits.rates import RateLimits
from serve.revocations import Revocations
from serve.settings import Settings


class Guards:
    """`opening` opens the store of keys when it is needed first."""

    def __init__(
        self,
        settings: Settings,
        opening: Opening,
        notices: Notices,
        quotas: Quotas,
        *,
        clock: Clock,
        log: Any,
    ) -> None:
        self.keys = Keys(settings, opening, clock, log, hears=lambda: self.revocations.hears)
        self.revocations = Revocations(notices, self.keys, clock, log, token_s=settings.token_s)
        self.limits = RateLimits(settings, quotas, clock, log)

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(self.keys.run(), self.revocations.run(), self.limits.run())

    async def aclose(self) -> None:
        await self.keys.flush()
        await self.limits.aclose()
