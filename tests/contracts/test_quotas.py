"""Buckets and slots that gateways share, and what they tell each other."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla.core.access import Notices, Quotas
from flotilla.core.errors import Unavailable
from flotilla.core.ids import new_id
from flotilla.core.policy.gcra import Quota, Taken, take
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey
from flotilla.stores.valkey_notices import ValkeyNotices
from flotilla.stores.valkey_quotas import ValkeyQuotas

SLOW = Quota(burst=10, every_s=3600.0)  # no token comes back while a test runs


async def test_a_bucket_gives_what_it_has_and_then_says_how_long_to_wait(quotas: Quotas) -> None:
    subject = new_id("x")
    first = await quotas.take(subject, SLOW, 7)
    assert (first.granted, first.left, first.retry_after_s) == (7, 3, 0.0)
    assert (await quotas.take(subject, SLOW, 7)).granted == 3
    empty = await quotas.take(subject, SLOW, 1)
    assert empty.granted == 0 and 3590 < empty.retry_after_s <= 3600
    assert 35_900 < empty.full_in_s <= 36_000
    assert (await quotas.take(new_id("x"), SLOW, 1)).granted == 1


async def test_many_at_once_get_no_more_than_there_are(quotas: Quotas) -> None:
    subject = new_id("x")
    taken = await asyncio.gather(*(quotas.take(subject, SLOW, 3) for _ in range(20)))
    assert sum(one.granted for one in taken) == 10


async def test_tokens_come_back_with_time(quotas: Quotas) -> None:
    subject, quota = new_id("x"), Quota(burst=5, every_s=0.01)
    assert (await quotas.take(subject, quota, 5)).granted == 5
    began, granted = time.monotonic(), 0
    while granted < 20:
        granted += (await quotas.take(subject, quota, 5)).granted
    assert time.monotonic() - began > 0.15


async def test_slots_are_shared_out_until_there_are_none(quotas: Quotas) -> None:
    subject = new_id("x")
    mine = await quotas.hold(subject, "a", used=0, wanted=6, most=10)
    others = await quotas.hold(subject, "b", used=0, wanted=6, most=10)
    assert (mine.mine, mine.others) == (6, 0) and (others.mine, others.others) == (4, 6)
    assert (await quotas.hold(subject, "c", used=0, wanted=1, most=10)).mine == 0


async def test_a_holder_keeps_what_it_uses_and_gives_back_what_it_does_not_want(quotas: Quotas) -> None:
    subject = new_id("x")
    await quotas.hold(subject, "a", used=0, wanted=10, most=10)
    # The bound was lowered, or a server lost what it knew: what is open stays open, and is counted.
    assert (await quotas.hold(subject, "b", used=3, wanted=5, most=10)).mine == 3
    assert (await quotas.hold(subject, "a", used=0, wanted=0, most=10)).mine == 0
    assert (await quotas.hold(subject, "b", used=3, wanted=10, most=10)).mine == 10


async def test_slots_of_a_holder_that_is_silent_are_free_again(
    valkey_server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flotilla.stores.valkey_quotas.HELD_KEPT_S", 0.05)
    client, subject = valkey.connect(valkey_server.url), new_id("x")
    quotas = ValkeyQuotas(client)
    await quotas.hold(subject, "a", used=10, wanted=10, most=10)
    async with asyncio.timeout(5):
        while not (await quotas.hold(subject, "b", used=0, wanted=1, most=10)).mine:
            await asyncio.sleep(0.01)
    await client.aclose()


@settings(max_examples=30)
@given(
    burst=st.integers(1, 50),
    every_s=st.sampled_from([60.0, 61.7, 100.0]),
    wants=st.lists(st.integers(1, 20), max_size=12),
)
def test_the_script_gives_what_the_core_gives(
    valkey_server: Valkey, burst: int, every_s: float, wants: list[int]
) -> None:
    async def scripted() -> list[Taken]:
        client, subject = valkey.connect(valkey_server.url), new_id("x")
        found = [await ValkeyQuotas(client).take(subject, Quota(burst, every_s), want) for want in wants]
        await client.aclose()
        return found

    tat = 0.0
    for one, want in zip(asyncio.run(scripted()), wants, strict=True):
        expected, tat = take(Quota(burst, every_s), tat, 1000.0, want)
        assert (one.granted, one.left) == (expected.granted, expected.left)
        assert abs(one.retry_after_s - expected.retry_after_s) < 5
        assert abs(one.full_in_s - expected.full_in_s) < 5


async def test_while_valkey_is_down_nothing_is_counted(valkey_server: Valkey) -> None:
    client = valkey.connect(valkey_server.url)
    valkey_server.stop()
    try:
        with pytest.raises(Unavailable):
            await ValkeyQuotas(client).take("x", SLOW, 1)
        with pytest.raises(Unavailable):
            await ValkeyNotices(client).tell("x")
        with pytest.raises(Unavailable):
            await ValkeyNotices(client).hear("", 0.1)
    finally:
        valkey_server.start()
        await client.aclose()


# -- notices


async def test_all_hear_what_is_told_in_order_also_who_comes_later(notices: Notices) -> None:
    for name in ("a", "b 日本語", "a"):
        await notices.tell(name)
    place, heard = await notices.hear("", 1.0)
    assert heard == ["a", "b 日本語", "a"]
    assert await notices.hear(place, 0.05) == (place, [])
    await notices.tell("c")
    assert (await notices.hear(place, 1.0))[1] == ["c"]
    assert (await notices.hear("", 1.0))[1] == ["a", "b 日本語", "a", "c"]


async def test_who_waits_hears_at_once(notices: Notices) -> None:
    await notices.tell("before")
    place, _ = await notices.hear("", 1.0)
    waiting = asyncio.create_task(notices.hear(place, 1.5))
    await asyncio.sleep(0)
    began = time.monotonic()
    await notices.tell("now")
    assert (await waiting)[1] == ["now"] and time.monotonic() - began < 1.4
