"""The ledger of tokens and cost."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla.core.charges import MILLION, Charge, Spent, cost_of
from flotilla.core.errors import Unavailable
from flotilla.core.generation import Usage
from flotilla.core.ids import new_id
from flotilla.core.ports import UsageLedger
from flotilla.core.versions import Price
from flotilla.stores.embedded import Postgres
from flotilla.stores.postgres import PostgresJournal, open_journal
from flotilla.stores.postgres_pool import APP_ROLE
from tests.contracts.record import SECRET

AT = datetime(2026, 11, 21, 23, 59, 59, 123456, tzinfo=UTC)
EVER = (date(2000, 1, 1), date(3000, 1, 1))
TABLES = ("charges", "charges_by_day")


def charge(tenant: str, key: str = "", **more: Any) -> Charge:
    settings: dict[str, Any] = {
        "at": AT,
        "source": "openai",
        "model": "smollm2@1",
        "usage": Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=5),
        "cost": 7,
        "first_token_ms": 12.5,
    }
    return Charge(tenant=tenant, key=key or new_id("req"), **{**settings, **more})


async def test_what_is_charged_is_summed_by_day_model_and_source(usage_ledger: UsageLedger) -> None:
    tenant = new_id("t")
    await usage_ledger.charge(
        [
            charge(tenant),
            charge(tenant, model="other@日本語", source="session", outcome="cancelled"),
            charge(tenant, at=AT + timedelta(days=1), source="agent"),
        ]
    )
    one = {"replies": 1, "prompt_tokens": 10, "cached_tokens": 4, "completion_tokens": 5, "cost": 7}
    two = {name: 2 * number for name, number in one.items()}
    assert await usage_ledger.usage(tenant, *EVER, "day") == [
        Spent(name="2026-11-21", **two),
        Spent(name="2026-11-22", **one),
    ]
    assert await usage_ledger.usage(tenant, *EVER, "model") == [
        Spent(name="other@日本語", **one),
        Spent(name="smollm2@1", **two),
    ]
    assert [s.name for s in await usage_ledger.usage(tenant, *EVER, "source")] == [
        "agent",
        "openai",
        "session",
    ]


async def test_a_key_counts_once_however_often_and_wherever_it_comes(usage_ledger: UsageLedger) -> None:
    one = charge(new_id("t"))
    changed = msgspec.structs.replace(one, cost=1_000, model="other@1")
    await usage_ledger.charge([one, one])
    await asyncio.gather(*(usage_ledger.charge([changed, charge(one.tenant, "b")]) for _ in range(5)))
    (spent,) = await usage_ledger.usage(one.tenant, *EVER, "model")
    assert (spent.name, spent.replies, spent.cost) == ("smollm2@1", 2, 14)


async def test_days_are_those_of_utc_and_the_last_is_left_out(usage_ledger: UsageLedger) -> None:
    tenant = new_id("t")
    there = datetime(2026, 11, 22, 1, 0, tzinfo=timezone(timedelta(hours=5)))  # the 21st, at Greenwich
    await usage_ledger.charge([charge(tenant, at=there.astimezone(UTC)), charge(tenant)])

    async def names(since: date, until: date) -> list[str]:
        return [spent.name for spent in await usage_ledger.usage(tenant, since, until, "day")]

    assert await names(date(2026, 11, 21), date(2026, 11, 22)) == ["2026-11-21"]
    assert await names(date(2026, 11, 22), date(2026, 11, 23)) == []
    assert await names(date(2026, 11, 20), date(2026, 11, 21)) == []


async def test_tenants_are_apart(usage_ledger: UsageLedger) -> None:
    one, two = charge(new_id("t"), "same"), charge(new_id("t"), "same", cost=100)
    await usage_ledger.charge([one, two])
    assert [s.cost for s in await usage_ledger.usage(one.tenant, *EVER, "day")] == [7]
    assert [s.cost for s in await usage_ledger.usage(two.tenant, *EVER, "day")] == [100]
    assert await usage_ledger.usage(new_id("t"), *EVER, "day") == []


async def test_nothing_is_nothing(usage_ledger: UsageLedger) -> None:
    await usage_ledger.charge([])


# -- PostgreSQL's


async def test_writers_of_the_same_rows_in_opposite_order_all_get_through(
    postgres_journal: PostgresJournal, postgres_server: Postgres
) -> None:
    other = await open_journal(postgres_server.url, secret=SECRET)
    try:
        charges = [charge(f"t-{n % 7}", f"{new_id('k')}-{n}", model=f"m@{n % 5}") for n in range(300)]
        before = await _replies(postgres_journal)
        await asyncio.gather(
            *(postgres_journal.ledger.charge(charges) for _ in range(4)),
            *(other.ledger.charge(charges[::-1]) for _ in range(4)),
        )
        assert await _replies(postgres_journal) - before == 300
    finally:
        await other.close()


async def _replies(journal: PostgresJournal) -> int:
    sums = [await journal.ledger.usage(f"t-{n}", *EVER, "day") for n in range(7)]
    return sum(spent.replies for of in sums for spent in of)


@pytest.mark.parametrize("tenants", ["", "t-other", "t-other,t", "T-MINE"])
async def test_a_statement_sees_and_writes_no_row_of_another_tenant(
    postgres_journal: PostgresJournal, postgres_server: Postgres, tenants: str
) -> None:
    await postgres_journal.ledger.charge([charge("t-mine", "mine")])
    connection = await asyncpg.connect(postgres_server.url, server_settings={"role": APP_ROLE})
    try:
        await connection.execute("select set_config('app.tenants', 't-mine', false)")
        rows = {table: await connection.fetch(f"select * from {table}") for table in TABLES}  # noqa: S608
        assert all(rows.values())
        await connection.execute("select set_config('app.tenants', $1, false)", tenants)
        for table in TABLES:
            assert not await connection.fetch(f"select * from {table} where tenant = 't-mine'")  # noqa: S608
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                await connection.execute(f"insert into {table} select ($1::{table}).*", rows[table][0])
        assert (
            await connection.execute("update charges_by_day set cost = 0 where tenant = 't-mine'")
            == "UPDATE 0"
        )
    finally:
        await connection.close()


async def test_nobody_may_change_what_was_charged(
    postgres_journal: PostgresJournal, postgres_server: Postgres
) -> None:
    await postgres_journal.ledger.charge([charge("t-mine", "mine")])
    connection = await asyncpg.connect(postgres_server.url, server_settings={"role": APP_ROLE})
    try:
        await connection.execute("select set_config('app.tenants', 't-mine', false)")
        for statement in ("update charges set cost = 0", "delete from charges", "delete from charges_by_day"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_call_leaves_no_tenant_behind_on_its_connection(postgres_server: Postgres) -> None:
    journal = await open_journal(postgres_server.url, secret=SECRET, connections=1)
    try:
        await journal.ledger.charge([charge("t-left")])
        assert await journal.ledger.usage("t-left", *EVER, "day")
        assert await journal.ledger._pool.fetchval("select count(*) from charges") == 0
    finally:
        await journal.close()


async def test_while_postgres_is_down_the_ledger_is_unavailable(
    postgres_journal: PostgresJournal, postgres_server: Postgres
) -> None:
    one = charge(new_id("t"))
    postgres_server.stop()
    try:
        for call in (
            postgres_journal.ledger.charge([one]),
            postgres_journal.ledger.usage(one.tenant, *EVER, "day"),
        ):
            with pytest.raises(Unavailable):
                await call
    finally:
        postgres_server.start()
    await postgres_journal.ping()
    await postgres_journal.ledger.charge([one])
    assert len(await postgres_journal.ledger.usage(one.tenant, *EVER, "day")) == 1


# -- what it costs


def test_cached_tokens_have_a_price_of_their_own_and_parts_are_rounded_up() -> None:
    price = Price(prompt=2 * MILLION, cached=1 * MILLION, completion=4 * MILLION)
    assert cost_of(Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=5), price) == 12 + 4 + 20
    assert cost_of(Usage(prompt_tokens=1), Price(prompt=1)) == 1
    assert cost_of(Usage(), price) == 0 == cost_of(Usage(prompt_tokens=10), Price())


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**9))
def test_a_cost_is_never_below_and_less_than_one_above_the_exact_one(
    prompt: int, cached: int, completion: int, unit: int
) -> None:
    usage = Usage(prompt_tokens=prompt, cached_tokens=min(cached, prompt), completion_tokens=completion)
    cost = cost_of(usage, Price(prompt=unit, cached=unit // 2, completion=2 * unit))
    exact = (
        (usage.prompt_tokens - usage.cached_tokens) * unit + usage.cached_tokens * (unit // 2)
    ) + completion * 2 * unit
    assert 0 <= cost * MILLION - exact < MILLION
