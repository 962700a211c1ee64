"""One bucket as a gateway holds it: it takes tokens ahead, a lease of them, so that a message costs no round
trip. What a lease has left when its time is over is lost to its owner: never too much is admitted, and too
little by less than a tenth of the burst, as leases grow only for those who use them up."""

from __future__ import annotations

import asyncio

import msgspec

from flotilla.core.access import Quotas
from flotilla.core.clock import Clock
from flotilla.core.errors import LimitReached
from flotilla.core.policy.gcra import Quota

LEASE_S = 2.0
# Of the burst, for all gateways together: half of the tenth by which the limit may be missed, as the next
# lease is taken while there is something left of the one before.
LEASED_SHARE = 0.05


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a subject stands: for `RateLimit` headers."""

    name: str
    quota: Quota
    left: int
    full_in_s: float


class LimitHit(LimitReached):
    """With where the caller stands."""

    standing: Standing | None = None


class Bucket:
    """`name` is what the limit is called, `whose` whom it bounds."""

    __slots__ = (
        "_clock",
        "_filling",
        "_full_in_s",
        "_left",
        "_most",
        "_quotas",
        "_refused_until",
        "_room",
        "_size",
        "_until",
        "_waiting",
        "name",
        "quota",
        "subject",
        "whose",
    )

    def __init__(
        self,
        name: str,
        whose: str,
        subject: str,
        quota: Quota,
        *,
        quotas: Quotas,
        clock: Clock,
        gateways: int,
    ) -> None:
        self.name, self.whose, self.subject, self.quota = name, whose, subject, quota
        self._quotas, self._clock = quotas, clock
        self._most = max(1, int(quota.burst * LEASED_SHARE / gateways))
        self._size = 1
        self._room = 0
        self._until = self._refused_until = 0.0
        self._left, self._full_in_s = quota.burst, 0.0
        self._waiting = 0
        self._filling: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Bucket {self.subject}: {self._room} of a lease of {self._size}>"

    @property
    def idle(self) -> bool:
        return self._filling is None and self._clock.monotonic() >= max(self._until, self._refused_until)

    @property
    def standing(self) -> Standing:
        left = max(0, self._left + self._room)
        return Standing(name=self.name, quota=self.quota, left=left, full_in_s=self._full_in_s)

    def take_now(self) -> bool:
        """False if the lease has nothing left: `take` asks for another."""
        if self._room <= 0 or self._clock.monotonic() >= self._until:
            return False
        self._room -= 1
        if self._filling is None and self._room < self._size // 4:
            self._begin()  # before it is needed: nobody has to wait
        return True

    def give_back(self) -> None:
        """What was taken here and not used, as another limit was reached."""
        self._room += 1

    async def take(self) -> None:
        """Raises `LimitHit` if the bucket is empty."""
        while not self.take_now():
            self._check()
            self._waiting += 1
            try:
                await asyncio.shield(self._filling or self._begin())
            finally:
                self._waiting -= 1

    def _check(self) -> None:
        wait_s = self._refused_until - self._clock.monotonic()
        if wait_s > 0:
            raise self._hit(wait_s)

    def _hit(self, wait_s: float) -> LimitHit:
        per_s = 1 / self.quota.every_s
        pace = f"{per_s:g} a second" if per_s >= 1 else f"{60 * per_s:g} a minute"
        hit = LimitHit(
            f"Over the limit `{self.name}` of this {self.whose}: {pace}, {self.quota.burst} at once.",
            field=f"limits.{self.name}",
            next="Wait, or ask the operator for more.",
            retry_after_s=wait_s,
        )
        hit.standing = Standing(name=self.name, quota=self.quota, left=0, full_in_s=self._full_in_s)
        return hit

    def _begin(self) -> asyncio.Task[None]:
        self._filling = asyncio.create_task(self._fill())
        return self._filling

    async def _fill(self) -> None:
        try:
            await self._refill()
        finally:
            self._filling = None

    async def _refill(self) -> None:
        asked = self._clock.monotonic()
        if asked >= self._until:
            self._room = 0
        self._resize(asked)
        wanted = max(self._size, self._waiting)
        taken = await self._quotas.take(self.subject, self.quota, wanted)
        now = self._clock.monotonic()
        self._left, self._full_in_s = taken.left, taken.full_in_s
        self._room += taken.granted
        if taken.granted:
            self._until = now + LEASE_S
        else:
            self._refused_until = now + taken.retry_after_s

    def _resize(self, now: float) -> None:
        """Twice as much for who has used a lease up in time, little again for who has not."""
        if now < self._until:
            self._size = min(self._most, self._size * 2)
        else:
            self._size = max(1, self._size // 8)
