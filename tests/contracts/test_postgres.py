"""What PostgreSQL's journal does besides: it keeps tenants apart, and outlives its server's restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from flotilla.core.errors import Conflict, Unavailable
from flotilla.stores.embedded import Postgres
from flotilla.stores.postgres import APP_ROLE, PostgresJournal, _translated, migrate, open_journal
from tests.build import OPENED, actor, append, facts_of, message


@pytest.fixture
async def postgres_journal(postgres_server: Postgres) -> AsyncIterator[PostgresJournal]:
    await migrate(postgres_server.url)
    journal = await open_journal(postgres_server.url)
    yield journal
    await journal.close()


async def test_two_processes_that_write_the_same_actors_in_opposite_order_only_conflict(
    postgres_journal: PostgresJournal, postgres_server: Postgres
) -> None:
    """Group commits of two hosts lock the same keys; a deadlock would be neither a win nor a conflict."""
    other = await open_journal(postgres_server.url)
    try:
        for _ in range(3):
            ids = [actor() for _ in range(400)]
            done = await asyncio.gather(
                *(append(postgres_journal, id, 0, OPENED) for id in ids),
                *(append(other, id, 0, OPENED) for id in reversed(ids)),
                return_exceptions=True,
            )
            assert {type(outcome) for outcome in done} == {type(None), Conflict}
            assert done.count(None) == len(ids)
    finally:
        await other.close()


async def test_row_level_security_is_on(postgres_journal: PostgresJournal, postgres_server: Postgres) -> None:
    mine = actor("t-mine")
    await append(postgres_journal, mine, 0, OPENED, unfinished=True)
    connection = await asyncpg.connect(postgres_server.url, server_settings={"role": APP_ROLE})
    insert = "insert into facts values ('t-mine', 'session/x', 1, 'k', now(), 'b')"
    try:
        for tenants, seen in (("", False), ("t-other", False), ("t-other,t", False), ("t-mine", True)):
            await connection.execute("select set_config('app.tenants', $1, false)", tenants)
            for table in ("facts", "unfinished"):
                rows = await connection.fetch(f"select * from {table} where tenant = 't-mine'")  # noqa: S608
                assert bool(rows) == seen
            if not seen:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(insert)
        for statement in ("update facts set kind = 'x'", "delete from facts", "truncate facts"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_call_leaves_no_tenant_behind_on_its_connection(postgres_server: Postgres) -> None:
    await migrate(postgres_server.url)
    pool = await asyncpg.create_pool(
        postgres_server.url, min_size=1, max_size=1, server_settings={"role": APP_ROLE}
    )
    journal = PostgresJournal(pool)
    await append(journal, actor("t-left"), 0, OPENED)
    await journal.read(actor("t-left"))
    assert await pool.fetchval("select count(*) from facts") == 0
    await journal.close()


async def test_an_owner_that_is_no_superuser_sees_unfinished_actors(postgres_server: Postgres) -> None:
    """A managed PostgreSQL gives no superuser; recovery must work there too."""
    admin = await asyncpg.connect(postgres_server.url)
    try:
        await migrate(postgres_server.url)  # makes the role
        await admin.execute("create role plain login createrole")
        await admin.execute(f"grant {APP_ROLE} to plain with admin option")
        await admin.execute("create database plain owner plain")
    finally:
        await admin.close()
    url = postgres_server.url.replace("//postgres@/postgres", "//plain@/plain")
    await migrate(url)
    journal = await open_journal(url)
    id = actor()
    await append(journal, id, 0, OPENED, unfinished=True)
    found = await journal.unfinished()
    await journal.close()
    assert found == [id]


async def test_migrating_again_and_at_once_changes_nothing(postgres_server: Postgres) -> None:
    done = await asyncio.gather(*(migrate(postgres_server.url) for _ in range(3)))
    assert sum(bool(steps) for steps in done) <= 1


async def test_while_postgres_is_down_calls_are_unavailable_and_then_work_again(
    postgres_journal: PostgresJournal, postgres_server: Postgres
) -> None:
    id = actor()
    await append(postgres_journal, id, 0, OPENED)
    postgres_server.stop()
    try:
        for call in (
            append(postgres_journal, id, 1, message(2)),
            postgres_journal.read(id),
            postgres_journal.unfinished(),
            postgres_journal.ping(),
        ):
            with pytest.raises(Unavailable):
                await call
        with pytest.raises(Unavailable):
            await open_journal(postgres_server.url)
    finally:
        postgres_server.start()
    await postgres_journal.ping()
    await append(postgres_journal, id, 1, message(2))
    assert await facts_of(postgres_journal, id) == [OPENED, message(2)]


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.AdminShutdownError,
        asyncpg.CannotConnectNowError,
        asyncpg.ConnectionDoesNotExistError,
        asyncpg.TooManyConnectionsError,
        asyncpg.DiskFullError,
        asyncpg.CrashShutdownError,  # another backend was killed: all connections are dropped
        asyncpg.DeadlockDetectedError,
        asyncpg.QueryCanceledError,  # statement_timeout
        asyncpg.ReadOnlySQLTransactionError,  # failed over: this server is a replica now
    ],
)
async def test_what_passes_by_itself_is_unavailable_and_not_an_internal_error(error: type) -> None:
    with pytest.raises(Unavailable) as caught:
        async with _translated():
            raise error("for a moment")
    assert caught.value.retry_after_s
