"""Where keys are kept: of a secret only a digest, every key its tenant's, revoked for good."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from flotilla.core.access import KeyStore
from flotilla.core.api_keys import IssuedKey, KeyLimits, NewSecret, Pepper, new_key_id
from flotilla.core.errors import LimitReached, Unavailable
from flotilla.core.ids import new_id
from flotilla.core.limits import LIMITS
from flotilla.stores.embedded import Postgres
from flotilla.stores.postgres import PostgresJournal
from flotilla.stores.postgres_pool import APP_ROLE

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
PEPPER = Pepper("a secret of the fleet")


def made(tenant: str, **more: Any) -> tuple[IssuedKey, NewSecret]:
    id = new_key_id()
    new = PEPPER.fresh(id)
    fields: dict[str, Any] = {"name": "the désk 日本語", "scopes": ("conversations:read", "usage:read")}
    key = IssuedKey(
        id=id, tenant=tenant, shown=new.shown, digest=new.digest, created=NOW, **{**fields, **more}
    )
    return key, new


async def test_a_key_is_read_as_it_was_made(key_store: KeyStore) -> None:
    tenant = new_id("t")
    limits = KeyLimits(messages_per_s=2.5, sockets=7)
    key, _ = made(tenant, limits=limits, created_by="dev", expires=NOW + HOUR)
    await key_store.create(key)
    assert await key_store.read(tenant, key.id) == key == await key_store.find(key.id)
    assert await key_store.find(new_key_id()) is None


async def test_another_tenant_neither_reads_lists_rotates_nor_revokes_it(key_store: KeyStore) -> None:
    tenant, other = new_id("t"), new_id("t")
    key, new = made(tenant)
    await key_store.create(key)
    assert await key_store.read(other, key.id) is None
    assert await key_store.list(other) == []
    rotated = await key_store.rotate(other, key.id, digest=new.digest, shown="", at=NOW, until=NOW)
    assert rotated is None and await key_store.revoke(other, key.id, NOW) is None
    await key_store.touch([(other, key.id)], NOW)
    assert await key_store.read(tenant, key.id) == key


async def test_the_newest_is_listed_first_a_page_at_a_time(key_store: KeyStore) -> None:
    tenant = new_id("t")
    keys = [made(tenant)[0] for _ in range(5)]
    for key in keys:
        await key_store.create(key)
    newest = sorted((key.id for key in keys), reverse=True)
    first = await key_store.list(tenant, limit=3)
    rest = await key_store.list(tenant, before=first[-1].id, limit=3)
    assert [key.id for key in [*first, *rest]] == newest


async def test_after_a_rotation_both_secrets_work_until_the_former_ends(key_store: KeyStore) -> None:
    tenant = new_id("t")
    key, old = made(tenant)
    await key_store.create(key)
    new = PEPPER.fresh(key.id)
    until = NOW + HOUR
    rotated = await key_store.rotate(tenant, key.id, digest=new.digest, shown=new.shown, at=NOW, until=until)
    assert rotated is not None and rotated == await key_store.find(key.id)
    assert (rotated.shown, rotated.former_until) == (new.shown, until)
    assert rotated.until(new.digest, NOW) is None and rotated.until(old.digest, NOW) == until
    with pytest.raises(KeyError):
        rotated.until(old.digest, until)


async def test_revoked_is_for_good_and_the_first_time_stays(key_store: KeyStore) -> None:
    tenant = new_id("t")
    key, new = made(tenant)
    await key_store.create(key)
    first = await key_store.revoke(tenant, key.id, NOW)
    again = await key_store.revoke(tenant, key.id, NOW + HOUR)
    assert first is not None and first.revoked == NOW and again == first
    with pytest.raises(KeyError):
        first.until(new.digest, NOW)
    rotated = await key_store.rotate(tenant, key.id, digest=new.digest, shown="", at=NOW, until=NOW)
    assert rotated is None
    assert await key_store.revoke(tenant, new_key_id(), NOW) is None


async def test_an_expired_key_is_not_rotated(key_store: KeyStore) -> None:
    tenant = new_id("t")
    key, new = made(tenant, expires=NOW + HOUR)
    await key_store.create(key)
    late = NOW + HOUR
    assert await key_store.rotate(tenant, key.id, digest=new.digest, shown="", at=late, until=late) is None


async def test_use_is_noted_for_many_tenants_at_once_and_never_goes_back(key_store: KeyStore) -> None:
    keys = [made(new_id("t"))[0] for _ in range(3)]
    for key in keys:
        await key_store.create(key)
    pairs = [(key.tenant, key.id) for key in keys]
    await key_store.touch(pairs, NOW + HOUR)
    await key_store.touch(pairs, NOW)
    await key_store.touch([], NOW)
    for key in keys:
        found = await key_store.find(key.id)
        assert found is not None and found.used == NOW + HOUR


async def test_a_tenant_has_no_more_live_keys_than_the_limit(
    key_store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = msgspec.structs.replace(LIMITS, keys_per_tenant_max=3)
    for module in (
        "flotilla.core.api_keys",
        "flotilla.stores.postgres_api_keys",
        "flotilla.stores.memory_api_keys",
    ):
        monkeypatch.setattr(f"{module}.LIMITS", few)
    tenant = new_id("t")
    keys = [made(tenant)[0] for _ in range(8)]
    done = await asyncio.gather(*map(key_store.create, keys), return_exceptions=True)
    assert done.count(None) == 3 and sum(isinstance(one, LimitReached) for one in done) == 5
    await key_store.revoke(tenant, (await key_store.list(tenant))[0].id, NOW)
    await key_store.create(made(tenant)[0])
    await key_store.create(made(new_id("t"))[0])


# -- PostgreSQL


async def test_nothing_from_which_a_secret_can_be_had_is_in_the_database(
    postgres_journal: PostgresJournal, postgres_server: Postgres
) -> None:
    key, new = made(new_id("t"))
    await postgres_journal.api_keys.create(key)
    connection = await asyncpg.connect(postgres_server.url)
    try:
        row = str(dict(await connection.fetchrow("select * from api_keys where id = $1", key.id)))
    finally:
        await connection.close()
    secret = new.key.rpartition("_")[2]
    assert key.id in row and secret[5:] not in row and new.key not in row


@pytest.mark.parametrize("tenants", ["", "t-other", "T-MINE"])
async def test_a_statement_sees_and_changes_no_key_of_another_tenant(
    postgres_journal: PostgresJournal, postgres_server: Postgres, tenants: str
) -> None:
    key, _ = made("t-mine")
    await postgres_journal.api_keys.create(key)
    connection = await asyncpg.connect(postgres_server.url, server_settings={"role": APP_ROLE})
    try:
        await connection.execute("select set_config('app.tenants', 't-mine', false)")
        row = await connection.fetchrow("select * from api_keys where id = $1", key.id)
        await connection.execute("select set_config('app.tenants', $1, false)", tenants)
        assert not await connection.fetch("select * from api_keys where tenant = 't-mine'")
        assert await connection.execute("update api_keys set revoked = null") == "UPDATE 0"
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await connection.execute("insert into api_keys select ($1::api_keys).*", row)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await connection.execute("delete from api_keys")
    finally:
        await connection.close()


async def test_while_postgres_is_down_the_keys_are_unavailable(
    postgres_journal: PostgresJournal, postgres_server: Postgres
) -> None:
    key, _ = made(new_id("t"))
    postgres_server.stop()
    try:
        with pytest.raises(Unavailable):
            await postgres_journal.api_keys.create(key)
        with pytest.raises(Unavailable):
            await postgres_journal.api_keys.find(key.id)
    finally:
        postgres_server.start()
    await postgres_journal.ping()
    await postgres_journal.api_keys.create(key)
