"""API keys without a disk."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from flotilla.core.api_keys import IssuedKey, too_many_keys
from flotilla.core.limits import LIMITS


class MemoryApiKeys:
    """Implements `KeyStore`, for as long as its process lives."""

    def __init__(self) -> None:
        self._keys: dict[str, IssuedKey] = {}

    async def create(self, key: IssuedKey) -> None:
        live = [k for k in self._keys.values() if k.tenant == key.tenant and k.live(key.created)]
        if len(live) >= LIMITS.keys_per_tenant_max:
            raise too_many_keys()
        self._keys[key.id] = key

    async def find(self, id: str) -> IssuedKey | None:
        return self._keys.get(id)

    async def read(self, tenant: str, id: str) -> IssuedKey | None:
        found = self._keys.get(id)
        return found if found is not None and found.tenant == tenant else None

    async def list(self, tenant: str, *, before: str | None = None, limit: int = 50) -> list[IssuedKey]:
        mine = [key for key in self._keys.values() if key.tenant == tenant]
        older = [key for key in mine if before is None or key.id < before]
        return sorted(older, key=lambda key: key.id, reverse=True)[:limit]

    async def rotate(
        self, tenant: str, id: str, *, digest: bytes, shown: str, at: datetime, until: datetime
    ) -> IssuedKey | None:
        key = await self.read(tenant, id)
        if key is None or not key.live(at):
            return None
        return self._changed(key, digest=digest, shown=shown, former=key.digest, former_until=until)

    async def revoke(self, tenant: str, id: str, at: datetime) -> IssuedKey | None:
        key = await self.read(tenant, id)
        if key is None:
            return None
        return self._changed(key, revoked=key.revoked or at, former=None, former_until=None)

    async def touch(self, used: Iterable[tuple[str, str]], at: datetime) -> None:
        for tenant, id in used:
            key = await self.read(tenant, id)
            if key is not None and (key.used is None or key.used < at):
                self._changed(key, used=at)

    def _changed(self, key: IssuedKey, **fields: object) -> IssuedKey:
        changed = self._keys[key.id] = msgspec.structs.replace(key, **fields)
        return changed
