"""Buckets, slots and notices for gateways in one process."""

from __future__ import annotations

import asyncio

from flotilla.core.access import Held
from flotilla.core.clock import Clock
from flotilla.core.policy.gcra import Quota, Taken, take


class MemoryQuotas:
    """Implements `Quotas`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tats: dict[str, float] = {}
        self._slots: dict[str, dict[str, int]] = {}

    async def take(self, subject: str, quota: Quota, wanted: int) -> Taken:
        taken, tat = take(quota, self._tats.get(subject, 0.0), self._clock.monotonic(), wanted)
        self._tats[subject] = tat
        return taken

    async def hold(self, subject: str, holder: str, *, used: int, wanted: int, most: int) -> Held:
        slots = self._slots.setdefault(subject, {})
        others = sum(count for name, count in slots.items() if name != holder)
        mine = max(used, min(wanted, most - others))
        slots[holder] = max(0, mine)
        return Held(max(0, mine), others)


class MemoryNotices:
    """Implements `Notices`."""

    def __init__(self) -> None:
        self._told: list[str] = []
        self._news = asyncio.Event()

    async def tell(self, name: str) -> None:
        self._told.append(name)
        self._news.set()
        self._news = asyncio.Event()

    async def hear(self, after: str, wait_s: float) -> tuple[str, list[str]]:
        at = int(after or 0)
        if at >= len(self._told):
            try:
                await asyncio.wait_for(self._news.wait(), wait_s)
            except TimeoutError:
                return str(at), []
        return str(len(self._told)), self._told[at:]
