"""What a client's idempotency key was first used for."""

from __future__ import annotations

import asyncio

import pytest

from flotilla.core.errors import Unavailable
from flotilla.core.ids import new_id
from flotilla.core.limits import LIMITS
from flotilla.core.ports import Once
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey


async def test_the_first_value_of_a_key_stays(once: Once) -> None:
    key = new_id("k")
    assert await once.claim("t1", key, "first 日本語") == "first 日本語"
    assert await once.claim("t1", key, "second") == "first 日本語"


async def test_of_many_at_once_all_get_the_same(once: Once) -> None:
    key = new_id("k")
    got = await asyncio.gather(*(once.claim("t1", key, f"v{n}") for n in range(20)))
    assert len(set(got)) == 1


async def test_tenants_and_keys_are_apart(once: Once) -> None:
    key = new_id("k")
    await once.claim("t1", key, "a")
    assert await once.claim("t2", key, "b") == "b"
    assert await once.claim("t1", key + "x", "c") == "c"


@pytest.mark.parametrize("odd", ["open:a b", "{}", "x" * 256, "\0\n", "日本語"])
async def test_a_key_may_be_any_text(once: Once, odd: str) -> None:
    key = new_id("k") + odd
    assert await once.claim("t1", key, "a") == "a"
    assert await once.claim("t1", key, "b") == "a"


async def test_a_key_is_remembered_for_a_day(valkey_server: Valkey) -> None:
    client, key = valkey.connect(valkey_server.url), new_id("k")
    await valkey.ValkeyOnce(client).claim("t1", key, "a")
    (name,) = await client.keys(f"*{key}")
    assert LIMITS.idempotency_s - 60 < await client.ttl(name) <= LIMITS.idempotency_s
    await client.aclose()


async def test_while_valkey_is_down_a_claim_is_unavailable_and_not_granted(valkey_server: Valkey) -> None:
    client, key = valkey.connect(valkey_server.url), new_id("k")
    once = valkey.ValkeyOnce(client)
    await once.claim("t1", key, "first")
    valkey_server.stop()
    try:
        with pytest.raises(Unavailable):
            await once.claim("t1", key, "second")
    finally:
        valkey_server.start()
    assert await once.claim("t1", key, "second") == "first"
    await client.aclose()
