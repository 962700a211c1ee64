"""The doors of who may do what, and how much of it. See `flotilla/core/ports.py` for the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from flotilla.core.api_keys import IssuedKey
from flotilla.core.policy.gcra import Quota, Taken


class KeyStore(Protocol):
    """The keys of the tenants. Every call but `find` and `touch` is bound to a tenant."""

    async def create(self, key: IssuedKey) -> None:
        """Raises `LimitReached` if the tenant has `LIMITS.keys_per_tenant_max` live ones."""
        ...

    async def find(self, id: str) -> IssuedKey | None:
        """Of whatever tenant: it is asked before one is known."""
        ...

    async def read(self, tenant: str, id: str) -> IssuedKey | None: ...

    async def list(self, tenant: str, *, before: str | None = None, limit: int = 50) -> Sequence[IssuedKey]:
        """Newest first; the revoked and the expired too."""
        ...

    async def rotate(
        self, tenant: str, id: str, *, digest: bytes, shown: str, at: datetime, until: datetime
    ) -> IssuedKey | None:
        """Gives it another secret; the one before goes on until `until`. None unless it is live at `at`."""
        ...

    async def revoke(self, tenant: str, id: str, at: datetime) -> IssuedKey | None:
        """For good; again, it changes nothing. None if there is none."""
        ...

    async def touch(self, used: Iterable[tuple[str, str]], at: datetime) -> None:
        """Notes when keys, each by tenant and id, were used last."""
        ...


class Notices(Protocol):
    """What every gateway must hear: names of keys that were changed and of sessions that were closed."""

    async def tell(self, name: str) -> None: ...

    async def hear(self, after: str, wait_s: float) -> tuple[str, list[str]]:
        """What was told after that place, waiting up to `wait_s` for the first; and the place to go on
        from. The place "" is the beginning of what is kept: the last hundred thousand or so."""
        ...


class Held(msgspec.Struct, frozen=True):
    """Slots that one holder has; `others` are those of all the others together."""

    mine: int
    others: int


class Quotas(Protocol):
    """Buckets and slots that all gateways share."""

    async def take(self, subject: str, quota: Quota, wanted: int) -> Taken:
        """As many of `wanted` as there are."""
        ...

    async def hold(self, subject: str, holder: str, *, used: int, wanted: int, most: int) -> Held:
        """Slots for `holder`: `wanted` if all together stay within `most`, else as many as there are, and
        never fewer than it has in use. They are free again when the holder wants 0, or has been silent for a while."""
        ...
