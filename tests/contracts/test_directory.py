"""What every directory does: who is alive, and where."""

from __future__ import annotations

import msgspec
import pytest

from flotilla.core.errors import Unavailable
from flotilla.core.ids import new_id
from flotilla.core.members import Member
from flotilla.core.ports import Directory
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey


def member(role: str, name: str = "h-1", life: str = "l-1", address: str = "127.0.0.1:1") -> Member:
    return Member(role=role, name=name, life=life, address=address, capacity=2.5, info={"name": "m 日本語"})


@pytest.fixture
def role() -> str:
    return new_id("role")


async def test_a_member_that_beats_is_found_as_it_is(directory: Directory, role: str) -> None:
    await directory.beat(member(role))
    await directory.beat(member(role))
    assert await directory.members(role) == [member(role)]


async def test_members_come_in_one_order_and_by_role(directory: Directory, role: str) -> None:
    for name in ("b", "c", "a"):
        await directory.beat(member(role, name))
    await directory.beat(member(role + "x", "other"))
    assert [m.name for m in await directory.members(role)] == ["a", "b", "c"]
    assert await directory.members(new_id("role")) == []


async def test_a_new_life_takes_the_place_of_the_old_one(directory: Directory, role: str) -> None:
    await directory.beat(member(role, life="l-1", address="127.0.0.1:1"))
    await directory.beat(member(role, life="l-2", address="127.0.0.1:2"))
    (found,) = await directory.members(role)
    assert (found.life, found.address) == ("l-2", "127.0.0.1:2")


async def test_who_leaves_is_gone_and_may_leave_again(directory: Directory, role: str) -> None:
    await directory.beat(member(role, "a"))
    await directory.beat(member(role, "b"))
    for _ in range(2):
        await directory.leave(member(role, "a"))
        assert [m.name for m in await directory.members(role)] == ["b"]


async def test_the_leave_of_an_old_life_does_not_take_the_new_one_along(
    directory: Directory, role: str
) -> None:
    """A process that is slow to end may leave after its successor has begun to beat."""
    await directory.beat(member(role, life="l-2"))
    await directory.leave(member(role, life="l-1"))
    assert [m.life for m in await directory.members(role)] == ["l-2"]


async def test_who_leaves_is_gone_though_its_load_has_changed_since_its_last_beat(
    directory: Directory, role: str
) -> None:
    told = msgspec.structs.replace(member(role), load={"turns": 3.5})
    await directory.beat(told)
    assert await directory.members(role) == [told]
    await directory.leave(msgspec.structs.replace(told, state="draining", load={"turns": 0.0}))
    assert await directory.members(role) == []


async def test_a_member_that_stops_beating_expires_and_comes_back_with_a_beat(
    valkey_server: Valkey, role: str
) -> None:
    client = valkey.connect(valkey_server.url)
    directory = valkey.ValkeyDirectory(client)
    await directory.beat(member(role))
    (key,) = await client.keys(f"*{role}:*")
    assert 0 < await client.pttl(key) <= valkey.BEAT_KEPT_MS
    await client.pexpire(key, 0)  # its time is up
    assert await directory.members(role) == []
    await directory.beat(member(role))
    assert len(await directory.members(role)) == 1
    await directory.close()


async def test_a_member_of_a_newer_release_does_not_hide_the_others(valkey_server: Valkey, role: str) -> None:
    """Rolling upgrade: another release's record has a field more."""
    client = valkey.connect(valkey_server.url)
    directory = valkey.ValkeyDirectory(client)
    await directory.beat(member(role, "a"))
    await directory.beat(member(role, "b"))
    newer = msgspec.to_builtins(member(role, "b")) | {"zone": "eu-1"}
    (key,) = await client.keys(f"*{role}:b")
    await client.set(key, msgspec.json.encode(newer), px=3000)
    assert [m.name for m in await directory.members(role)] == ["a", "b"]
    await directory.close()


async def test_while_valkey_is_down_calls_are_unavailable_and_then_work_again(
    valkey_server: Valkey, role: str
) -> None:
    directory = valkey.ValkeyDirectory(valkey.connect(valkey_server.url))
    valkey_server.stop()
    try:
        for call in (
            directory.beat(member(role)),
            directory.members(role),
            directory.leave(member(role)),
            directory.ping(),
        ):
            with pytest.raises(Unavailable):
                await call
    finally:
        valkey_server.start()
    await directory.beat(member(role))
    assert await directory.members(role) == [member(role)]
    await directory.close()
