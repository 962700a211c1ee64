"""What PostgreSQL's journal does besides: it keeps tenants apart, and outlives its server's restarts."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from flotilla.core.errors import Conflict, FlotillaError, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.journal import BUCKETS, Append, Snapshot
from flotilla.stores.embedded import Postgres
from flotilla.stores.postgres import PostgresJournal, migrate, open_journal
from flotilla.stores.postgres_pool import APP_ROLE, translated
from flotilla.stores.sealing import Safe
from tests.contracts.record import NOW, SECRET, actor, append, entries_of, entry, reminder
from tests.contracts.test_letters import letter

TABLES = ("facts", "unfinished", "keys", "snapshots", "reminders", "letters")


async def fill(journal: PostgresJournal, id: ActorId) -> None:
    """A row in every table."""
    await append(journal, id, 0, entry(1), person="zoë", unfinished=True, remind=(reminder(),))
    await journal.keep(id, Snapshot(1, 1, b"state"), person="zoë")
    await journal.letters.put(letter(id))


async def test_two_processes_that_write_the_same_actors_in_opposite_order_only_conflict(
    postgres_journal: PostgresJournal, postgres_server: Postgres
) -> None:
    """Group commits of two hosts lock the same keys; a deadlock would be neither a win nor a conflict."""
    other = await open_journal(postgres_server.url, secret=SECRET)
    try:
        for _ in range(3):
            ids = [actor() for _ in range(400)]
            done = await asyncio.gather(
                *(append(postgres_journal, id, 0, entry(1)) for id in ids),
                *(append(other, id, 0, entry(1)) for id in reversed(ids)),
                return_exceptions=True,
            )
            assert {type(outcome) for outcome in done} == {type(None), Conflict}
            assert done.count(None) == len(ids)
    finally:
        await other.close()


@pytest.mark.parametrize("tenants", ["", "t-other", "t-other,t", "T-MINE"])
async def test_a_statement_sees_and_writes_no_row_of_another_tenant(
    postgres_journal: PostgresJournal, postgres_server: Postgres, tenants: str
) -> None:
    mine = actor("t-mine")
    await fill(postgres_journal, mine)
    connection = await asyncpg.connect(postgres_server.url, server_settings={"role": APP_ROLE})
    try:
        rows = {}
        await connection.execute("select set_config('app.tenants', 't-other,t-mine', false)")
        for table in TABLES:
            rows[table] = await connection.fetch(f"select * from {table} where tenant = 't-mine'")  # noqa: S608
            assert rows[table]
        await connection.execute("select set_config('app.tenants', $1, false)", tenants)
        for table in TABLES:
            assert not await connection.fetch(f"select * from {table} where tenant = 't-mine'")  # noqa: S608
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                await connection.execute(_copied(table), rows[table][0])
        for table in ("unfinished", "keys", "snapshots", "reminders", "letters"):
            assert await connection.execute(f"delete from {table}") == "DELETE 0"  # noqa: S608
    finally:
        await connection.close()


def _copied(table: str) -> str:
    override = "overriding system value" if table == "keys" else ""
    return f"insert into {table} {override} select ($1::{table}).*"


async def test_nobody_may_change_what_is_recorded(
    postgres_journal: PostgresJournal, postgres_server: Postgres
) -> None:
    await fill(postgres_journal, actor("t-mine"))
    connection = await asyncpg.connect(postgres_server.url, server_settings={"role": APP_ROLE})
    try:
        await connection.execute("select set_config('app.tenants', 't-mine', false)")
        for statement in (
            "update facts set type = 'x'",
            "delete from facts",
            "truncate facts",
            "update keys set wrapped = 'x'",
            "update letters set body = 'x'",
            "alter table facts disable row level security",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        with pytest.raises(asyncpg.CheckViolationError):  # no body is let in that is not sealed
            await connection.execute(
                "insert into facts (tenant, actor, seq, type, version, at, body)"
                " values ('t-mine', 'session/open', 1, 'x', 1, now(), 'open')"
            )
    finally:
        await connection.close()


async def test_a_call_leaves_no_tenant_behind_on_its_connection(postgres_server: Postgres) -> None:
    await migrate(postgres_server.url)
    pool = await asyncpg.create_pool(
        postgres_server.url, min_size=1, max_size=1, server_settings={"role": APP_ROLE}
    )
    journal, id = PostgresJournal(pool, Safe(SECRET)), actor("t-left")
    await fill(journal, id)
    await journal.load(id)
    await journal.read(id)
    await journal.reminders(id)
    await journal.actors(id.tenant, id.kind)
    await journal.letters.list(id.tenant)
    for table in TABLES:
        assert await pool.fetchval(f"select count(*) from {table}") == 0  # noqa: S608
    await journal.close()


async def test_an_owner_that_is_no_superuser_sees_unfinished_actors_and_reminders(
    postgres_server: Postgres,
) -> None:
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
    journal = await open_journal(url, secret=SECRET)
    id = actor()
    await append(journal, id, 0, entry(1), unfinished=True, remind=(reminder(),))
    found = await journal.unfinished()
    due = await journal.due(NOW, range(BUCKETS), limit=10)
    erased = await journal.erase(id.tenant, f"actor:{id.key}")
    await journal.close()
    assert found == [id] and [one.actor for one in due] == [id] and erased


async def test_the_looks_across_tenants_are_for_the_fleet_alone(postgres_server: Postgres) -> None:
    await migrate(postgres_server.url)
    connection = await asyncpg.connect(postgres_server.url)
    try:
        await connection.execute("create role stranger nologin; grant usage on schema public to stranger")
        await connection.execute("set role stranger")
        for look in ("unfinished_actors(9)", "due_reminders(now(), '{1}', 9)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"select * from {look}")  # noqa: S608
        await connection.execute("reset role; drop owned by stranger; drop role stranger")
    finally:
        await connection.close()


async def test_what_the_database_cannot_take_fails_its_own_append_alone(
    postgres_journal: PostgresJournal,
) -> None:
    bad, others = actor(), [actor() for _ in range(20)]
    far = Append(actor=actor(), expected=2**63, entries=(entry(),), at=NOW)
    done = await asyncio.gather(
        append(postgres_journal, bad, 0, entry(1), remind=(reminder("\0"),)),
        postgres_journal.append(far),
        *(append(postgres_journal, id, 0, entry(1)) for id in others),
        return_exceptions=True,
    )
    assert isinstance(done.pop(0), FlotillaError) and isinstance(done.pop(0), FlotillaError)
    assert done == [None] * 20 and await entries_of(postgres_journal, bad) == []


async def test_migrating_again_and_at_once_changes_nothing(postgres_server: Postgres) -> None:
    done = await asyncio.gather(*(migrate(postgres_server.url) for _ in range(3)))
    assert sum(bool(steps) for steps in done) <= 1


async def test_while_postgres_is_down_calls_are_unavailable_and_then_work_again(
    postgres_journal: PostgresJournal, postgres_server: Postgres
) -> None:
    id = actor()
    await append(postgres_journal, id, 0, entry(1))
    postgres_server.stop()
    try:
        for call in (
            append(postgres_journal, id, 1, entry(2)),
            postgres_journal.read(id),
            postgres_journal.load(id),
            postgres_journal.keep(id, Snapshot(1, 1, b"")),
            postgres_journal.erase("t", "p"),
            postgres_journal.due(NOW, [1], limit=1),
            postgres_journal.reminders(id),
            postgres_journal.letters.put(letter(id)),
            postgres_journal.letters.list("t"),
            postgres_journal.letters.remove("t", "x"),
            postgres_journal.unfinished(),
            postgres_journal.ping(),
        ):
            with pytest.raises(Unavailable):
                await call
        with pytest.raises(Unavailable):
            await open_journal(postgres_server.url, secret=SECRET)
    finally:
        postgres_server.start()
    await postgres_journal.ping()
    await append(postgres_journal, id, 1, entry(2))
    assert await entries_of(postgres_journal, id) == [entry(1), entry(2)]


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
        async with translated():
            raise error("for a moment")
    assert caught.value.retry_after_s
