"""Charges on their way to the ledger, and the bounds that are read from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from actors.serving import charging
from actors.serving.allowances import FRESH_S, Allowances
from actors.serving.charging import BATCH_MAX, FLUSH_EVERY_S, Charging
from flotilla.core.charges import By, Charge, Spent
from flotilla.core.errors import FlotillaError, LimitReached, Misconfigured, Unavailable
from flotilla.core.generation import Usage
from flotilla.core.policy.allowance import Allowance
from flotilla.stores.memory_ledger import MemoryLedger
from tests.actors.cluster import LOG

EVER = (date(2000, 1, 1), date(3000, 1, 1))
NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class Hand:
    """A clock that is turned by hand: whoever sleeps wakes when its time has come."""

    def __init__(self) -> None:
        self.at = 0.0
        self.sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.at)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self.sleepers.append((self.at + seconds, event))
        await event.wait()

    async def turn(self, seconds: float) -> None:
        self.at += seconds
        for due, event in self.sleepers:
            if due <= self.at:
                event.set()
        self.sleepers = [one for one in self.sleepers if one[0] > self.at]
        await settled()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Ledger(MemoryLedger):
    """Fails while it is `down`, and for keys that are `odd`."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.odd = False, set[str]()
        self.batches: list[int] = []
        self.looks = 0

    async def charge(self, charges: Sequence[Charge]) -> None:
        await self._up()
        if any(one.key in self.odd for one in charges):
            raise FlotillaError("PostgreSQL refused a statement.")
        self.batches.append(len(charges))
        await super().charge(charges)

    async def usage(self, tenant: str, since: date, until: date, by: By) -> list[Spent]:
        self.looks += 1
        await self._up()
        return await super().usage(tenant, since, until, by)

    async def _up(self) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("PostgreSQL does not answer.", retry_after_s=1.0)

    def opening(self) -> Awaitable[Ledger]:
        done: asyncio.Future[Ledger] = asyncio.get_running_loop().create_future()
        done.set_result(self)
        return done

    async def replies(self) -> int:
        return sum(spent.replies for spent in await MemoryLedger.usage(self, "t", *EVER, "day"))


def charge(key: str, tokens: int = 10) -> Charge:
    usage = Usage(completion_tokens=tokens)
    return Charge(tenant="t", key=key, at=NOON, source="openai", model="m@1", usage=usage)


async def test_charges_go_in_one_batch_after_a_moment() -> None:
    clock, ledger = Hand(), Ledger()
    here = Charging(ledger.opening, clock, LOG)
    running = asyncio.create_task(here.run())
    for n in range(20):
        here.charge(charge(str(n)))
    await settled()
    assert ledger.batches == [] and here.waiting == 20
    await clock.turn(FLUSH_EVERY_S)
    assert ledger.batches == [20] and here.waiting == 0
    running.cancel()


async def test_a_full_batch_does_not_wait() -> None:
    clock, ledger = Hand(), Ledger()
    here = Charging(ledger.opening, clock, LOG)
    running = asyncio.create_task(here.run())
    await settled()
    for n in range(BATCH_MAX + 10):
        here.charge(charge(str(n)))
    await settled()
    assert ledger.batches == [BATCH_MAX, 10]
    running.cancel()


async def test_nothing_is_lost_over_an_outage_of_the_ledger() -> None:
    clock, ledger = Hand(), Ledger()
    here = Charging(ledger.opening, clock, LOG)
    running = asyncio.create_task(here.run())
    ledger.down = True
    for n in range(2 * BATCH_MAX):
        here.charge(charge(str(n)))
        if n % 100 == 0:
            await clock.turn(1.0)
    assert here.waiting == 2 * BATCH_MAX and not running.done()
    ledger.down = False
    await clock.turn(10.0)
    assert await ledger.replies() == 2 * BATCH_MAX and (here.waiting, here.dropped) == (0, 0)
    running.cancel()


async def test_past_the_bound_charges_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charging, "WAITING_MAX", 100)
    ledger = Ledger()
    here = Charging(ledger.opening, Hand(), LOG)
    for n in range(130):
        here.charge(charge(str(n)))
    assert (here.waiting, here.dropped) == (100, 30)
    await here.flush()
    assert await ledger.replies() == 100


async def test_one_that_cannot_be_written_takes_no_other_with_it() -> None:
    ledger = Ledger()
    ledger.odd = {"13"}
    here = Charging(ledger.opening, Hand(), LOG)
    for n in range(40):
        here.charge(charge(str(n)))
    await here.flush()
    assert await ledger.replies() == 39 and (here.waiting, here.dropped) == (0, 1)


async def test_closing_writes_what_waits_or_counts_it_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    here = Charging(ledger.opening, Hand(), LOG)
    here.charge(charge("a"))
    await here.aclose()
    assert await ledger.replies() == 1
    ledger.down = True
    here.charge(charge("b"))
    await here.aclose()
    assert here.dropped == 1 and here.waiting == 0


async def test_cancelled_in_the_middle_of_a_write_nothing_counts_twice() -> None:
    ledger = Ledger()
    here = Charging(ledger.opening, Hand(), LOG)
    for n in range(10):
        here.charge(charge(str(n)))
    writing = asyncio.create_task(here.flush())
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await here.aclose()
    assert await ledger.replies() == 10 and here.dropped == 0


async def test_a_ledger_that_cannot_be_opened_loses_nothing() -> None:
    ledger, clock, broken = Ledger(), Hand(), True

    async def opening() -> Ledger:
        if broken:
            raise Misconfigured("The record was sealed under another secret.")
        return ledger

    here = Charging(opening, clock, LOG)
    running = asyncio.create_task(here.run())
    here.charge(charge("a"))
    await settled()
    await clock.turn(FLUSH_EVERY_S)
    assert (here.waiting, here.dropped) == (1, 0) and not running.done()
    broken = False
    await clock.turn(10.0)
    assert await ledger.replies() == 1
    running.cancel()


# -- allowances


def bounded(ledger: Ledger, clock: Any, **allowance: int) -> Allowances:
    return Allowances(ledger.opening, clock, LOG, tenants={"t": Allowance(**allowance)})


async def test_who_has_no_bound_costs_no_look() -> None:
    ledger = Ledger()
    assert await bounded(ledger, Hand(), tokens_per_day=5).check("other") is None
    assert ledger.looks == 0


async def test_what_is_charged_here_counts_before_the_ledger_knows() -> None:
    ledger, clock = Ledger(), Hand()
    await ledger.charge([charge("before", 60)])
    here = bounded(ledger, clock, tokens_per_day=100)
    left = await here.check("t")
    assert left and left.tokens == 40
    here.heard(charge("a", 30))
    left = await here.check("t")
    assert left and left.tokens == 10 and ledger.looks == 1
    here.heard(charge("b", 30))
    with pytest.raises(LimitReached):
        await here.check("t")


async def test_the_ledger_is_looked_at_again_after_a_while_and_once_for_all_who_ask() -> None:
    ledger, clock = Ledger(), Hand()
    here = bounded(ledger, clock, tokens_per_month=100)
    await asyncio.gather(*(here.check("t") for _ in range(20)))
    assert ledger.looks == 1
    await ledger.charge([charge("elsewhere", 100)])
    await here.check("t")
    clock.at += FRESH_S
    with pytest.raises(LimitReached):
        await here.check("t")
    assert ledger.looks == 2


async def test_a_new_day_begins_anew_and_a_month_goes_on() -> None:
    ledger, clock = Ledger(), Hand()
    await ledger.charge([charge("a", 100)])
    here = bounded(ledger, clock, tokens_per_day=100)
    with pytest.raises(LimitReached) as refused:
        await here.check("t")
    clock.at = refused.value.retry_after_s or 0.0
    left = await here.check("t")
    assert left and left.tokens == 100
    month = await bounded(ledger, clock, tokens_per_month=150).check("t")
    assert month and month.tokens == 50


async def test_an_outage_of_the_ledger_is_not_one_of_the_models() -> None:
    ledger, clock = Ledger(), Hand()
    ledger.down = True
    here = bounded(ledger, clock, tokens_per_day=100)
    assert (await here.check("t")) is not None
    ledger.down = False
    clock.at += FRESH_S
    await ledger.charge([charge("a", 100)])
    with pytest.raises(LimitReached):
        await here.check("t")
    ledger.down = True
    clock.at += FRESH_S
    with pytest.raises(LimitReached):  # what it said last
        await here.check("t")
