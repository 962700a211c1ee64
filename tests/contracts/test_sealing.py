"""What lies in the database is sealed, each body to its place, and a dropped key opens nothing at any host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from flotilla.core.errors import Erased, Misconfigured, Undecodable
from flotilla.core.ids import ActorId, new_id
from flotilla.core.journal import Letter, Snapshot
from flotilla.stores import postgres_keys
from flotilla.stores.embedded import Postgres
from flotilla.stores.postgres import PostgresJournal, open_journal
from flotilla.stores.sealing import Safe
from tests.contracts.record import NOW, SECRET, actor, append, entries_of, entry

TEXT = b"my card number is 4929 8131 3266 4295"
PERSON = "zoe.customer@example.com"


@pytest.fixture
async def admin(postgres_server: Postgres) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_server.url)
    yield connection
    await connection.close()


@pytest.fixture
async def other(
    postgres_server: Postgres, postgres_journal: PostgresJournal
) -> AsyncIterator[PostgresJournal]:
    """Another host's journal, on the same database."""
    opened = await open_journal(postgres_server.url, secret=SECRET)
    yield opened
    await opened.close()


async def write(journal: PostgresJournal, id: ActorId, person: str = PERSON) -> None:
    await append(journal, id, 0, entry(body=TEXT), entry(body=TEXT), person=person)
    await journal.keep(id, Snapshot(1, 1, TEXT), person=person)
    letter = Letter(id=new_id("x"), actor=id, at=NOW, message=TEXT, problem=TEXT.decode(), tries=3)
    await journal.letters.put(letter)


# -- what lies there


async def test_no_text_and_no_person_lies_open_in_any_column(
    postgres_journal: PostgresJournal, admin: asyncpg.Connection
) -> None:
    await write(postgres_journal, actor())
    tables = await admin.fetch("select tablename from pg_tables where schemaname = 'public'")
    assert {"facts", "snapshots", "letters", "keys"} <= {row["tablename"] for row in tables}
    for (table,) in tables:
        rows = await admin.fetch(f"select * from {table}")  # noqa: S608
        values = [value for row in rows for value in row.values()]
        for plain in (TEXT, PERSON.encode()):
            assert not any(plain in _bytes(value) for value in values), table


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


async def test_the_same_text_never_looks_the_same(
    postgres_journal: PostgresJournal, admin: asyncpg.Connection
) -> None:
    id = actor()
    await append(postgres_journal, id, 0, *[entry(body=TEXT)] * 50)
    bodies = await admin.fetch("select body from facts where actor = $1", id.key)
    assert len({row["body"] for row in bodies}) == 50


# -- what was changed there


@pytest.mark.parametrize(
    "change",
    [
        "update facts set body = set_byte(body, 20, (get_byte(body, 20) + 1) % 256) where actor = $1",
        "update facts set body = 'short' where actor = $1",
        "update facts set body = (select body from facts where actor = $1 and seq = 2) where actor = $1",
        "update facts set body = f.body from facts f where facts.actor = $1 and f.actor = $1 and f.seq <> facts.seq",
        "update facts set type = 'other' where actor = $1",
        "update facts set version = 9 where actor = $1",
        "update keys set wrapped = set_byte(wrapped, 3, (get_byte(wrapped, 3) + 1) % 256)"
        " where id = (select max(key) from facts where actor = $1)",
    ],
)
async def test_a_row_that_was_changed_is_not_believed(
    postgres_journal: PostgresJournal, other: PostgresJournal, admin: asyncpg.Connection, change: str
) -> None:
    id = actor(new_id("t"))
    await append(postgres_journal, id, 0, entry(1), entry(2))
    await admin.execute(change, id.key)
    for read in (other.read(id), other.load(id), other.actors(id.tenant, id.kind)):
        with pytest.raises(Undecodable) as refused:
            await read
        assert refused.value.next and TEXT.decode() not in str(refused.value)


@pytest.mark.parametrize("column", ["body", "seq", "version"])
async def test_a_snapshot_that_was_changed_is_not_believed(
    postgres_journal: PostgresJournal, admin: asyncpg.Connection, column: str
) -> None:
    id = actor()
    await append(postgres_journal, id, 0, entry(1), entry(2))
    await postgres_journal.keep(id, Snapshot(2, 2, TEXT))
    value = "'\\x00'" if column == "body" else "1"
    await admin.execute(f"update snapshots set {column} = {value} where actor = $1", id.key)  # noqa: S608
    with pytest.raises(Undecodable):
        await postgres_journal.load(id)


async def test_a_body_of_another_actor_of_the_same_person_is_not_believed(
    postgres_journal: PostgresJournal, admin: asyncpg.Connection
) -> None:
    one, two = actor(), actor()
    for id in (one, two):
        await append(postgres_journal, id, 0, entry(1), person=PERSON)
    await admin.execute(
        "update facts set body = (select body from facts where actor = $1) where actor = $2", one.key, two.key
    )
    with pytest.raises(Undecodable):
        await postgres_journal.read(two)


# -- the secret


async def test_without_a_secret_nothing_is_recorded(postgres_server: Postgres) -> None:
    with pytest.raises(Misconfigured) as refused:
        await open_journal(postgres_server.url, secret="")
    assert refused.value.field == "FLOTILLA_SECRET"


async def test_with_another_secret_the_fleet_does_not_start(
    postgres_journal: PostgresJournal, postgres_server: Postgres
) -> None:
    with pytest.raises(Misconfigured, match="another secret") as refused:
        await open_journal(postgres_server.url, secret=SECRET + "x")
    assert refused.value.field == "FLOTILLA_SECRET" and refused.value.next


async def test_another_secret_opens_nothing(
    postgres_journal: PostgresJournal, postgres_server: Postgres
) -> None:
    id = actor()
    await append(postgres_journal, id, 0, entry(body=TEXT))
    pool = await asyncpg.create_pool(postgres_server.url, min_size=1, max_size=1)
    stranger = PostgresJournal(pool, Safe(SECRET + "x"))
    with pytest.raises(Undecodable) as refused:
        await stranger.read(id)
    assert "FLOTILLA_SECRET" in (refused.value.next or "")
    await stranger.close()


# -- keys


async def test_two_hosts_that_meet_a_person_at_once_share_a_key(
    postgres_journal: PostgresJournal, other: PostgresJournal
) -> None:
    for _ in range(10):
        tenant = new_id("t")
        ids = [actor(tenant) for _ in range(20)]
        await asyncio.gather(
            *(append(postgres_journal, id, 0, entry(1), person=f"p{n % 5}") for n, id in enumerate(ids)),
            *(append(other, actor(tenant), 0, entry(1), person=f"p{n % 5}") for n in reversed(range(20))),
        )
        for id in ids:
            assert await entries_of(other, id) == [entry(1)]
        assert await postgres_journal.erase(tenant, "p0") and not await other.erase(tenant, "p0")


async def test_a_host_that_holds_a_dropped_key_can_neither_read_nor_write_with_it(
    postgres_journal: PostgresJournal, other: PostgresJournal
) -> None:
    id, tenant = actor(), "t1"
    await append(postgres_journal, id, 0, entry(1), person=PERSON)
    assert await entries_of(other, id) == [entry(1)]  # now both hold it
    await postgres_journal.erase(tenant, PERSON)
    for attempt in (
        other.read(id),
        other.load(id),
        append(other, id, 1, entry(2), person=PERSON),
        other.keep(id, Snapshot(1, 1, TEXT), person=PERSON),
    ):
        with pytest.raises(Erased):
            await attempt


async def test_a_person_that_comes_back_gets_a_key_that_the_old_one_is_not(
    postgres_journal: PostgresJournal, other: PostgresJournal, admin: asyncpg.Connection
) -> None:
    """The other host still holds the old one."""
    old, new, newer = actor(), actor(), actor()
    await append(other, old, 0, entry(1), person=PERSON)
    await postgres_journal.erase(old.tenant, PERSON)
    await append(other, new, 0, entry(1), person=PERSON)
    await append(postgres_journal, newer, 0, entry(1), person=PERSON)
    keys = {
        id: await admin.fetchval("select key from facts where actor = $1", id.key) for id in (old, new, newer)
    }
    assert keys[new] == keys[newer] != keys[old]
    assert await entries_of(postgres_journal, new) == [entry(1)]


async def test_only_some_keys_are_held_and_the_others_are_found_again(
    postgres_journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_keys, "KEYS_HELD_MAX", 3)
    ids = [actor() for _ in range(10)]
    for seq in range(2):
        await asyncio.gather(*(append(postgres_journal, id, seq, entry(seq)) for id in ids))
    for id in ids:
        assert await entries_of(postgres_journal, id) == [entry(0), entry(1)]
    assert repr(postgres_journal._keys) == "<Keyring: 3 held>"


async def test_what_was_recorded_before_there_was_sealing_can_be_read_and_gone_on_with(
    postgres_journal: PostgresJournal, admin: asyncpg.Connection
) -> None:
    id = actor()
    await admin.execute("alter table facts drop constraint facts_sealed")
    await admin.execute(
        "insert into facts (tenant, actor, seq, type, version, at, body) values ($1, $2, 1, 'counted', 1, $3, $4)",
        id.tenant,
        id.key,
        NOW,
        entry(1).body,
    )
    await admin.execute("alter table facts add constraint facts_sealed check (key is not null) not valid")
    await append(postgres_journal, id, 1, entry(2))
    await postgres_journal.keep(id, Snapshot(1, 1, b"one"))
    assert await entries_of(postgres_journal, id) == [entry(1), entry(2)]
    assert (await postgres_journal.load(id))[0] == Snapshot(1, 1, b"one")
    assert [found for found, _ in await postgres_journal.actors(id.tenant, id.kind, limit=1)]
