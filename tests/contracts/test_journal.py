"""What every journal does, and what PostgreSQL's does besides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from flotilla.core.errors import Conflict, Unavailable
from flotilla.core.facts import MessageAccepted, ReplyStarted, SessionClosed, SessionOpened
from flotilla.core.ids import ActorId, new_id
from flotilla.core.ports import Journal
from flotilla.stores.embedded import Postgres
from flotilla.stores.postgres import APP_ROLE, PostgresJournal, _translated, migrate, open_journal
from tests.build import passage

NOW = datetime(2026, 11, 21, 9, 30, 0, 123456, tzinfo=UTC)
OPENED = SessionOpened(agent="bank", customer="Zoë 👩‍👩‍👧", metadata={"n": [1, None, {"k": "v"}]})


def actor(tenant: str = "t1", name: str | None = None, kind: str = "session") -> ActorId:
    return ActorId(tenant, kind, name or new_id("s"))


def message(n: int, text: str = "Hello") -> MessageAccepted:
    return MessageAccepted(turn=f"t_{n}", id=f"c-{n}", text=text)


async def append(journal: Journal, id: ActorId, expected: int, *facts, unfinished: bool = False) -> None:
    await journal.append(id, expected, facts, at=NOW, unfinished=unfinished)


async def facts_of(journal: Journal, id: ActorId) -> list:
    return [recorded.fact for recorded in await journal.read(id)]


# -- every journal


async def test_facts_come_back_as_they_went_in_numbered_from_one(journal: Journal) -> None:
    id = actor()
    facts = [
        OPENED,
        message(2, "naïve 日本語 \u2028 '; drop table facts; --"),
        ReplyStarted(turn="t_2", model="m", passages=(passage(),), similarity=0.5),
    ]
    await append(journal, id, 0, facts[0])
    await append(journal, id, 1, *facts[1:])
    read = await journal.read(id)
    assert [r.fact for r in read] == facts and [r.seq for r in read] == [1, 2, 3]
    assert all(r.at == NOW for r in read)


async def test_an_actor_without_facts_reads_as_empty(journal: Journal) -> None:
    assert await journal.read(actor()) == []


async def test_reading_after_a_seq_and_up_to_a_limit(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, OPENED, *(message(n) for n in range(2, 7)))
    assert [r.seq for r in await journal.read(id, after=2)] == [3, 4, 5, 6]
    assert [r.seq for r in await journal.read(id, after=2, limit=2)] == [3, 4]
    assert await journal.read(id, after=6) == [] and await journal.read(id, after=99) == []


async def test_a_stale_writer_gets_a_conflict_and_leaves_nothing(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, OPENED)
    for stale in (message(1), message(2)):
        with pytest.raises(Conflict):
            await append(journal, id, 0, stale, SessionClosed())
    assert await facts_of(journal, id) == [OPENED]


async def test_a_writer_from_the_future_gets_a_conflict_so_that_there_are_no_gaps(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, OPENED)
    with pytest.raises(Conflict):
        await append(journal, id, 5, message(6))
    assert [r.seq for r in await journal.read(id)] == [1]


async def test_of_two_writers_that_race_exactly_one_wins(journal: Journal) -> None:
    for _ in range(10):
        id = actor()
        ours, theirs = (OPENED, message(1), message(2)), (OPENED, message(3))
        done = await asyncio.gather(
            append(journal, id, 0, *ours), append(journal, id, 0, *theirs), return_exceptions=True
        )
        assert sorted(type(outcome) for outcome in done if outcome is not None) == [Conflict]
        assert await facts_of(journal, id) == list(ours if done[0] is None else theirs)


async def test_a_conflict_fails_only_its_own_actor(journal: Journal) -> None:
    stale, others = actor(), [actor() for _ in range(60)]
    await append(journal, stale, 0, OPENED)
    done = await asyncio.gather(
        *(append(journal, id, 0, OPENED, message(2)) for id in others[:30]),
        append(journal, stale, 0, message(9)),
        *(append(journal, id, 0, OPENED, message(2)) for id in others[30:]),
        return_exceptions=True,
    )
    assert isinstance(done.pop(30), Conflict) and done == [None] * 60
    assert await facts_of(journal, stale) == [OPENED]
    for id in others:
        assert await facts_of(journal, id) == [OPENED, message(2)]


async def test_whatever_text_one_actor_has_the_others_are_recorded(journal: Journal) -> None:
    odd, other = actor(), actor()
    done = await asyncio.gather(
        append(journal, odd, 0, message(1, "\0 \x1b \ufffe")), append(journal, other, 0, OPENED)
    )
    assert done == [None, None] and await facts_of(journal, odd) == [message(1, "\0 \x1b \ufffe")]


async def test_the_unfinished_flag_is_that_of_the_last_append(journal: Journal) -> None:
    id = actor()
    for n, flag in enumerate([True, True, False, True, False]):
        await append(journal, id, n, message(n), unfinished=flag)
        assert (id in await journal.unfinished()) == flag


async def test_a_lost_race_leaves_the_unfinished_flag_alone(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, message(1), unfinished=True)
    with pytest.raises(Conflict):
        await append(journal, id, 0, SessionClosed(), unfinished=False)
    assert id in await journal.unfinished()


async def test_unfinished_actors_of_all_tenants_are_found(journal: Journal) -> None:
    ids = [actor("t1"), actor("t2"), actor("t3", kind="agent")]
    await asyncio.gather(*(append(journal, id, 0, OPENED, unfinished=True) for id in ids))
    assert set(ids) <= set(await journal.unfinished())


async def test_a_list_is_newest_first_in_pages_with_first_and_last_fact(journal: Journal) -> None:
    tenant = new_id("t")
    ids = [actor(tenant, f"s_{n:02}") for n in range(7)]
    for id in ids:
        await append(journal, id, 0, OPENED)
    await append(journal, ids[3], 1, message(2), SessionClosed())
    found, before = [], None
    while page := await journal.actors(tenant, "session", before=before, limit=3):
        found += page
        before = page[-1][0].name
    assert [id for id, _ in found] == ids[::-1]
    ends = dict(found)
    assert [r.seq for r in ends[ids[3]]] == [1, 3] and ends[ids[3]][1].fact == SessionClosed()
    assert [r.seq for r in ends[ids[0]]] == [1]


async def test_a_list_is_in_one_order_whatever_the_letters(journal: Journal) -> None:
    tenant, names = new_id("t"), ["a", "B", "b", "A", "_", "s_1", "s-1", "s1", "Z", "z.9", "z:9"]
    for name in names:
        await append(journal, actor(tenant, name), 0, OPENED)
    found = [id.name for id, _ in await journal.actors(tenant, "session")]
    assert found == sorted(names, reverse=True)


async def test_a_list_has_one_tenant_and_one_kind(journal: Journal) -> None:
    one, two = new_id("t"), new_id("t")
    for id in (actor(one, "s"), actor(two, "s"), actor(one, "s", "agent"), actor(one, "s", "a_b")):
        await append(journal, id, 0, OPENED)
    await append(journal, actor(one, "x", "axb"), 0, OPENED)
    for kind in ("session", "agent", "a_b"):
        assert [id for id, _ in await journal.actors(one, kind)] == [actor(one, "s", kind)]
    assert await journal.actors(new_id("t"), "session") == []


async def test_the_same_name_of_two_tenants_is_two_actors(journal: Journal) -> None:
    one, two = actor(new_id("t"), "s"), actor(new_id("t"), "s")
    await asyncio.gather(append(journal, one, 0, OPENED), append(journal, two, 0, message(1)))
    assert await facts_of(journal, one) == [OPENED] and await facts_of(journal, two) == [message(1)]


# -- PostgreSQL


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
