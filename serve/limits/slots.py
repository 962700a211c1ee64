"""One bound on what is open at the same time, as a gateway holds it: it has slots ahead for the next ones."""

from __future__ import annotations

import asyncio

from flotilla.core.access import Quotas
from flotilla.core.errors import LimitReached

AHEAD_SHARE = (
    0.02  # of all slots, for each gateway; none where there are few, so that few are counted exactly
)
RETRY_AFTER_S = 5.0


class Slots:
    """`holder` names the gateway, `whose` whom the bound is for."""

    __slots__ = ("_ahead", "_holder", "_lock", "_mine", "_quotas", "most", "name", "subject", "used", "whose")

    def __init__(
        self,
        name: str,
        whose: str,
        subject: str,
        most: int,
        *,
        quotas: Quotas,
        holder: str,
        gateways: int,
    ) -> None:
        self.name, self.whose, self.subject, self.most = name, whose, subject, most
        self._quotas, self._holder = quotas, holder
        self._ahead = int(most * AHEAD_SHARE / gateways)
        self._mine = 0
        self.used = 0
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Slots {self.subject}: {self.used} of {self._mine} here, {self.most} in all>"

    @property
    def idle(self) -> bool:
        return not self.used and not self._mine and not self._lock.locked()

    def enter_now(self) -> bool:
        """False if another slot has to be asked for."""
        if self.used >= self._mine:
            return False
        self.used += 1
        return True

    async def enter(self) -> None:
        """Raises `LimitReached` if all are taken."""
        async with self._lock:
            if not self.enter_now():
                await self._ask(self.used + 1 + self._ahead)
                if not self.enter_now():
                    raise self._full()

    def leave(self) -> None:
        self.used -= 1

    async def renew(self) -> None:
        """Says that they are still held, and gives back what is not needed."""
        async with self._lock:
            await self._ask(self.used + self._ahead if self.used else 0)

    async def _ask(self, wanted: int) -> None:
        held = await self._quotas.hold(
            self.subject, self._holder, used=self.used, wanted=wanted, most=self.most
        )
        self._mine = held.mine

    def _full(self) -> LimitReached:
        return LimitReached(
            f"Over the limit `{self.name}` of this {self.whose}: {self.most} open at the same time.",
            field=f"limits.{self.name}",
            next="Close some that nobody needs, or ask the operator for more.",
            retry_after_s=RETRY_AFTER_S,
        )
