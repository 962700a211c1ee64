"""The ledger without a disk."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from flotilla.core.charges import By, Charge, Spent, spent_of
from flotilla.core.limits import LIMITS


class MemoryLedger:
    """Implements `UsageLedger`, for as long as its process lives."""

    def __init__(self) -> None:
        self._charges: dict[tuple[str, str], Charge] = {}

    async def charge(self, charges: Sequence[Charge]) -> None:
        for charge in charges:
            self._charges.setdefault((charge.tenant, charge.key), charge)

    async def usage(self, tenant: str, since: date, until: date, by: By) -> list[Spent]:
        sums: dict[str, Spent] = {}
        for charge in self._charges.values():
            if charge.tenant == tenant and since <= charge.day < until:
                one = spent_of(charge, by)
                sums[one.name] = sums[one.name].plus(one) if one.name in sums else one
        return [sums[name] for name in sorted(sums)][: LIMITS.page_max]
