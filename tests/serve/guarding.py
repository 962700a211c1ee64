"""Keys, revocations and limits of a gateway, on stores in memory."""

from __future__ import annotations

from typing import Any

from flotilla.core.clock import Clock
from flotilla.stores.memory_api_keys import MemoryApiKeys
from flotilla.stores.memory_quotas import MemoryNotices, MemoryQuotas
from serve.guards import Guards
from serve.settings import Settings
from tests.actors.cluster import LOG


class MemoryGuards(Guards):
    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        store: MemoryApiKeys | None = None,
        notices: MemoryNotices | None = None,
        quotas: MemoryQuotas | None = None,
        log: Any = LOG,
    ) -> None:
        self.store = store or MemoryApiKeys()
        notices = notices or MemoryNotices()
        super().__init__(
            settings, self.api_keys, notices, quotas or MemoryQuotas(clock), clock=clock, log=log
        )

    async def api_keys(self) -> MemoryApiKeys:
        return self.store
