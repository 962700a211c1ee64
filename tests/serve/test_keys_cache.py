"""What a gateway knows of keys: looked up once, forgotten at once, believed no longer than it may be."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from flotilla.core.api_keys import IssuedKey, NewSecret, new_key_id
from flotilla.core.errors import FlotillaError, Overloaded, Unauthenticated, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey
from flotilla.stores.memory_api_keys import MemoryApiKeys
from flotilla.stores.memory_quotas import MemoryNotices
from flotilla.stores.valkey_notices import ValkeyNotices
from serve.keys import Keys
from serve.principals import Principal
from serve.revocations import Revocations
from serve.settings import Settings
from tests.serve.conftest import OPERATOR_KEY, SETTINGS, TENANT_KEY
from tests.serve.guarding import MemoryGuards
from tests.serve.test_rates import Hands, Said
from tests.timing import until


class Store(MemoryApiKeys):
    """Counts look-ups, can be down, and can be held in the middle of one."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.down = 0, False
        self.gate = asyncio.Event()
        self.gate.set()

    async def find(self, id: str) -> IssuedKey | None:
        self.asked += 1
        if self.down:
            raise Unavailable("PostgreSQL does not answer.")
        found = await super().find(id)
        await self.gate.wait()
        return found


class World:
    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.clock, self.store, self.notices, self.log = Hands(), Store(), MemoryNotices(), Said()
        self.settings = settings
        self.gateways = [self.gateway() for _ in range(2)]

    def gateway(self) -> MemoryGuards:
        return MemoryGuards(self.settings, self.clock, store=self.store, notices=self.notices, log=self.log)

    @property
    def keys(self) -> Keys:
        return self.gateways[0].keys

    async def issue(self, **more: Any) -> NewSecret:
        id = new_key_id()
        new = self.keys.fresh(id)
        fields: dict[str, Any] = {"name": "n", "scopes": ("usage:read",), "created": self.clock.now()} | more
        key = IssuedKey(id=id, tenant="t", shown=new.shown, digest=new.digest, **fields)
        await self.store.create(key)
        return new


async def refused(keys: Keys, credential: str) -> str:
    with pytest.raises(Unauthenticated) as error:
        await keys.of(credential)
    assert error.value.next
    return error.value.detail


async def test_keys_of_the_environment_have_all_scopes_of_a_tenant_and_an_operators_all() -> None:
    w = World()
    tenant, operator, dev = [await w.keys.of(key) for key in (TENANT_KEY, OPERATOR_KEY, "dev")]
    assert (tenant.tenant, tenant.operator, operator.operator) == ("demo", False, True)
    assert "models:write" not in tenant.scopes and "keys:write" in tenant.scopes
    assert dev.tenant == "demo" and dev.operator
    assert w.store.asked == 0 and TENANT_KEY not in repr(tenant)
    assert len({tenant.key, operator.key, dev.key}) == 3


async def test_the_dev_key_is_for_loopback_only() -> None:
    w = World(msgspec.structs.replace(SETTINGS, bind="0.0.0.0"))
    assert "not known" in await refused(w.keys, "dev")


async def test_a_key_is_looked_up_once_for_many_and_again_when_it_is_old() -> None:
    w = World()
    new = await w.issue()
    who = await asyncio.gather(*(w.keys.of(new.key) for _ in range(50)))
    assert w.store.asked == 1
    assert {one.scopes for one in who} == {frozenset({"usage:read"})} and who[0].tenant == "t"
    w.clock.at += LIMITS.key_fresh_s
    await w.keys.of(new.key)
    assert w.store.asked == 2


async def test_wrong_keys_are_told_apart_and_cost_no_look_up_where_the_checksum_is_wrong() -> None:
    w = World()
    new = await w.issue()
    assert "checksum" in await refused(w.keys, new.key[:-1])
    assert "not known" in await refused(w.keys, "nonsense")
    assert w.store.asked == 0
    other = w.keys.fresh(new_key_id()).key
    assert "not known" in await refused(w.keys, other)
    same_id = w.keys.fresh((await w.store.list("t"))[0].id).key
    assert "not its secret" in await refused(w.keys, same_id)


async def test_forged_ids_reach_the_store_no_faster_than_they_may() -> None:
    w = World()
    for _ in range(200):
        await refused(w.keys, w.keys.fresh(new_key_id()).key)
    with pytest.raises(Overloaded) as error:
        await w.keys.of(w.keys.fresh(new_key_id()).key)
    assert error.value.retry_after_s and w.store.asked == 200
    w.clock.at += 1.0
    await refused(w.keys, w.keys.fresh(new_key_id()).key)


async def test_what_is_revoked_while_it_is_looked_up_is_not_believed() -> None:
    w = World()
    new = await w.issue()
    id = (await w.store.list("t"))[0].id
    w.store.gate.clear()
    asking = asyncio.create_task(w.keys.of(new.key))
    await until(lambda: w.store.asked == 1)
    await w.store.revoke("t", id, w.clock.now())
    await w.gateways[0].revocations.tell_revoked(id)
    w.store.gate.set()
    with pytest.raises(Unauthenticated):
        await asking
    assert w.store.asked == 2


async def test_without_postgres_a_known_key_works_as_long_as_notices_are_heard() -> None:
    w = World()
    new, unknown = await w.issue(), await w.issue()
    hearing = asyncio.create_task(w.gateways[0].revocations.run())
    await until(lambda: w.gateways[0].revocations.hears)
    await w.keys.of(new.key)
    w.store.down = True
    w.clock.at += 10 * LIMITS.key_fresh_s
    assert (await w.keys.of(new.key)).tenant == "t"
    with pytest.raises(Unavailable):
        await w.keys.of(unknown.key)
    w.gateways[0].revocations.hears = False
    with pytest.raises(Unavailable):
        await w.keys.of(new.key)
    hearing.cancel()


async def test_use_is_noted_to_the_minute() -> None:
    w = World()
    new = await w.issue()
    await w.keys.of(new.key)
    await w.keys.flush()
    (key,) = await w.store.list("t")
    assert key.used is not None and key.used == w.clock.now().replace(second=0, microsecond=0)


# -- revocations


async def test_a_key_that_is_revoked_at_one_gateway_is_refused_at_the_other_and_closed_there() -> None:
    w = World()
    new = await w.issue()
    here, there = w.gateways
    hearing = [asyncio.create_task(one.revocations.run()) for one in w.gateways]
    await until(lambda: here.revocations.hears and there.revocations.hears)
    gone: list[FlotillaError] = []
    who = await there.keys.of(new.key)
    unwatch = there.revocations.watch(who, gone.append)
    stays = there.revocations.watch(Principal(tenant="t", key="another"), gone.append)
    await w.store.revoke("t", who.key, w.clock.now())
    await here.revocations.tell_revoked(who.key)
    await until(lambda: gone)
    assert [error.status for error in gone] == [401]
    for gateway in w.gateways:
        await refused(gateway.keys, new.key)
    unwatch()
    stays()
    assert repr(there.revocations) == "<Revocations: 0 watched, hears>"
    for task in hearing:
        task.cancel()


async def test_after_a_rotation_the_former_secret_works_for_its_grace_and_what_it_opened_ends_then() -> None:
    w = World()
    old = await w.issue()
    here, there = w.gateways
    who = await there.keys.of(old.key)
    new, until_ = here.keys.fresh(who.key), w.clock.now() + timedelta(seconds=60)
    await w.store.rotate("t", who.key, digest=new.digest, shown=new.shown, at=w.clock.now(), until=until_)
    there.keys.forget(who.key)  # as the notice says
    former, latter = await there.keys.of(old.key), await there.keys.of(new.key)
    assert (former.until, latter.until, former.key) == (until_, None, latter.key)
    gone: list[str] = []
    there.revocations.watch(former, lambda _: gone.append("former"))
    there.revocations.watch(latter, lambda _: gone.append("latter"))
    await there.revocations.sweep()
    assert gone == []
    w.clock.at += 61
    await there.revocations.sweep()
    assert gone == ["former"]
    await refused(there.keys, old.key)
    await there.keys.of(new.key)


async def test_what_a_key_has_open_ends_when_it_expires_or_was_revoked_unheard() -> None:
    w = World()
    expiring = await w.issue(expires=w.clock.now() + timedelta(seconds=60))
    revoked = await w.issue()
    there = w.gateways[1]
    gone: list[str] = []
    for name, new in (("expiring", expiring), ("revoked", revoked)):
        who = await there.keys.of(new.key)
        there.revocations.watch(who, lambda _, name=name: gone.append(name))
    await w.store.revoke("t", who.key, w.clock.now())
    w.clock.at += LIMITS.key_fresh_s
    await there.revocations.sweep()
    assert gone == ["revoked"]
    w.clock.at += LIMITS.key_fresh_s + 1
    await there.revocations.sweep()
    assert gone == ["revoked", "expiring"]


async def test_a_closed_session_is_known_everywhere_and_forgotten_when_its_tokens_have_ended() -> None:
    w = World()
    here, there = w.gateways
    hearing = asyncio.create_task(there.revocations.run())
    actors = [ActorId("t", "session", f"s_{n}") for n in range(2)]
    await here.revocations.tell_closed(actors[0])
    await until(lambda: there.revocations.closed(actors[0]))
    assert here.revocations.closed(actors[0]) and not here.revocations.closed(actors[1])
    w.clock.at += SETTINGS.token_s + 1
    await here.revocations.tell_closed(actors[1])
    await until(lambda: there.revocations.closed(actors[1]))
    assert not there.revocations.closed(actors[0])
    hearing.cancel()


async def test_over_a_real_valkey_a_revocation_is_heard_within_a_second_also_after_an_outage(
    valkey_store: Valkey,
) -> None:
    w, clients = World(), [valkey.connect(valkey_store.url) for _ in range(2)]
    here, there = (
        Revocations(ValkeyNotices(client), guards.keys, w.clock, w.log)
        for client, guards in zip(clients, w.gateways, strict=True)
    )
    hearing = asyncio.create_task(there.run())
    await until(lambda: there.hears)
    gone: list[float] = []
    there.watch(Principal(tenant="t", key="dev"), lambda _: gone.append(time.monotonic()))
    began = time.monotonic()
    await here.tell_revoked("dev")
    await until(lambda: gone)
    assert gone[0] - began < 1.0
    valkey_store.stop()
    await until(lambda: not there.hears)
    assert "notices.not_heard" in w.log.events
    with pytest.raises(Unavailable):
        await here.tell_revoked("dev")
    valkey_store.start()
    turning = asyncio.create_task(_turn(w.clock))
    await until(lambda: there.hears)
    there.watch(Principal(tenant="t", key="dev"), lambda _: gone.append(time.monotonic()))
    await here.tell_revoked("dev")
    await until(lambda: len(gone) == 2)
    for task in (hearing, turning):
        task.cancel()
    for client in clients:
        await client.aclose()


async def _turn(clock: Hands) -> None:
    while True:
        clock.turn(0.1)
        await asyncio.sleep(0.005)
