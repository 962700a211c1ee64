"""Limits over several gateways that share their buckets, on a clock that the test turns."""

from __future__ import annotations

import asyncio
import heapq
import random
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla.core.access import Held
from flotilla.core.api_keys import KeyLimits
from flotilla.core.clock import SystemClock
from flotilla.core.errors import LimitReached, Unavailable
from flotilla.core.policy.gcra import Quota, Taken
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey
from flotilla.stores.memory_quotas import MemoryQuotas
from flotilla.stores.valkey_quotas import ValkeyQuotas
from serve.limits.headers import rate_headers
from serve.limits.rates import RateLimits
from serve.principals import Principal
from serve.settings import Settings
from tests.serve.conftest import SETTINGS

WHO = Principal(tenant="demo", key="k1")


class Hands:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.at = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.at + seconds, id(done), done))
        await done

    def turn(self, seconds: float) -> None:
        self.at += seconds
        while self._sleepers and self._sleepers[0][0] <= self.at:
            _, _, done = heapq.heappop(self._sleepers)
            if not done.done():
                done.set_result(None)


class Said:
    """A log that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def info(self, event: str, **_: Any) -> None:
        self.events.append(event)

    warning = info


class Broken:
    """`Quotas` of a Valkey that is down, until it is `up`."""

    def __init__(self, clock: Hands) -> None:
        self.up = False
        self.asked = 0
        self._quotas = MemoryQuotas(clock)

    async def take(self, subject: str, quota: Quota, wanted: int) -> Taken:
        self._check()
        return await self._quotas.take(subject, quota, wanted)

    async def hold(self, subject: str, holder: str, *, used: int, wanted: int, most: int) -> Held:
        self._check()
        return await self._quotas.hold(subject, holder, used=used, wanted=wanted, most=most)

    def _check(self) -> None:
        self.asked += 1
        if not self.up:
            raise Unavailable("Redis does not answer.")


def limited(gateways: int = 1, keys: KeyLimits | None = None, **bounds: Any) -> Settings:
    return msgspec.structs.replace(
        SETTINGS, gateways=gateways, limits=KeyLimits(**bounds), key_limits=keys or KeyLimits()
    )


def gates(made: Settings, quotas: Any, clock: Any, log: Any = None) -> list[RateLimits]:
    return [RateLimits(made, quotas, clock, log or Said()) for _ in range(made.gateways)]


async def admitted(gate: RateLimits, who: Principal = WHO, tries: int = 1) -> int:
    found = 0
    for _ in range(tries):
        try:
            await gate.message(who)
        except LimitReached:
            continue
        found += 1
    return found


async def test_a_limit_is_refused_with_its_name_and_when_to_come_back() -> None:
    clock = Hands()
    (gate,) = gates(limited(messages_per_s=2.0, messages_burst=4), MemoryQuotas(clock), clock)
    assert await admitted(gate, tries=10) == 4
    with pytest.raises(LimitReached, match="`messages` of this tenant: 2 a second, 4 at once") as hit:
        await gate.message(WHO)
    problem = hit.value.problem()
    assert (problem.status, problem.field, problem.retry_after_s) == (429, "limits.messages", 0.5)
    clock.at += 0.5
    assert await admitted(gate, tries=3) == 1
    clock.at += 100.0
    assert await admitted(gate, tries=10) == 4


async def test_tenants_and_keys_have_limits_of_their_own() -> None:
    clock = Hands()
    made = limited(keys=KeyLimits(messages_per_s=1.0, messages_burst=3), messages_per_s=1.0, messages_burst=8)
    (gate,) = gates(made, MemoryQuotas(clock), clock)
    assert await admitted(gate, Principal(tenant="demo", key="k1"), 10) == 3
    assert await admitted(gate, Principal(tenant="demo", key="k2"), 10) == 3
    mine = Principal(tenant="demo", key="k3", limits=KeyLimits(messages_burst=30, messages_per_s=1.0))
    assert await admitted(gate, mine, 30) == 2  # the rest of its tenant's
    assert await admitted(gate, Principal(tenant="other", key="k4"), 10) == 3


async def test_who_is_over_its_own_limit_takes_nothing_of_its_tenants() -> None:
    clock = Hands()
    made = limited(
        keys=KeyLimits(messages_per_s=0.001, messages_burst=1), messages_per_s=1.0, messages_burst=5
    )
    (gate,) = gates(made, MemoryQuotas(clock), clock)
    assert await admitted(gate, Principal(tenant="demo", key="k1"), 50) == 1
    others = [await admitted(gate, Principal(tenant="demo", key=f"o{n}")) for n in range(10)]
    assert sum(others) == 4


async def test_without_a_limit_nothing_is_counted() -> None:
    clock = Hands()
    quotas = Broken(clock)
    (gate,) = gates(limited(), quotas, clock)
    assert await gate.message(WHO) == [] and gate.message_now(WHO)
    assert await gate.opening(WHO) == []
    (await gate.socket(WHO))()
    assert quotas.asked == 0


async def test_a_busy_gateway_asks_for_more_at_once_and_an_idle_one_hoards_nothing() -> None:
    clock = Hands()
    quotas = Broken(clock)
    quotas.up = True
    (gate,) = gates(limited(messages_per_s=1000.0, messages_burst=10_000), quotas, clock)
    assert await admitted(gate, tries=5000) == 5000
    assert quotas.asked < 40
    before = quotas.asked
    for _ in range(20):  # one message every ten seconds: a lease would only be lost
        clock.at += 10.0
        assert await admitted(gate) == 1
    assert gate._buckets["messages", "tenant", "demo"]._size == 1  # type: ignore[reportPrivateUsage]
    assert quotas.asked - before <= 20


async def test_the_fast_way_never_waits() -> None:
    clock = Hands()
    (gate,) = gates(limited(messages_per_s=1000.0, messages_burst=1000), MemoryQuotas(clock), clock)
    assert not gate.message_now(WHO)  # nothing taken ahead yet
    assert await admitted(gate, tries=100) == 100
    assert any(gate.message_now(WHO) for _ in range(2))


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    gateways=st.integers(1, 4),
    burst=st.sampled_from([20, 200, 2000]),
    load=st.sampled_from([1.2, 2.0, 5.0]),
)
def test_over_gateways_a_limit_is_met_to_a_tenth(seed: int, gateways: int, burst: int, load: float) -> None:
    async def run() -> tuple[int, float]:
        clock, dice = Hands(), random.Random(seed)
        shared = MemoryQuotas(clock)
        rate = burst / 2.0
        made = gates(limited(gateways, messages_per_s=rate, messages_burst=burst), shared, clock)
        began, through, seconds = clock.at, 0, 20.0
        while clock.at - began < seconds:
            clock.at += dice.expovariate(rate * load)
            through += await admitted(dice.choice(made))
        return through, burst + rate * seconds

    through, allowed = asyncio.run(run())
    assert 0.9 * allowed <= through <= allowed + 1


async def test_while_valkey_is_down_each_gateway_gives_its_share_and_says_so_once() -> None:
    clock, said = Hands(), Said()
    quotas = Broken(clock)
    made = limited(2, messages_per_s=1.0, messages_burst=100, sockets=10)
    left, right = gates(made, quotas, clock, said)
    assert await admitted(left, tries=200) == 50 and await admitted(right, tries=200) == 50
    for _ in range(5):
        await left.socket(WHO)
    with pytest.raises(LimitReached):
        await left.socket(WHO)
    assert said.events == ["limits.not_shared"] * 2  # once a gateway
    assert quotas.asked == 2  # and it is not asked for each message
    quotas.up = True
    clock.at += 5.0
    assert await admitted(left, tries=200) == 100
    assert said.events[2:] == ["limits.shared_again"]


async def test_open_sockets_are_bounded_over_gateways_and_free_when_closed() -> None:
    clock = Hands()
    left, right = gates(limited(2, sockets=5), MemoryQuotas(clock), clock)
    open_ = [await gate.socket(WHO) for gate in (left, right, left, right, left)]
    for gate in (left, right):
        with pytest.raises(LimitReached, match="`sockets` of this tenant: 5 open") as hit:
            await gate.socket(WHO)
        assert hit.value.retry_after_s
    open_.pop()()  # of the left one: it has the slot still, and gives it back when it is renewed
    open_.append(await left.socket(WHO))
    open_.pop()()
    for slots in left._slots.values():  # type: ignore[reportPrivateUsage]
        await slots.renew()
    await right.socket(WHO)


async def test_a_gateway_that_goes_leaves_its_slots_to_the_others() -> None:
    clock = Hands()
    left, right = gates(limited(2, streams=3), MemoryQuotas(clock), clock)
    for _ in range(3):
        await left.stream(WHO)
    with pytest.raises(LimitReached):
        await right.stream(WHO)
    await left.aclose()
    for _ in range(3):
        await right.stream(WHO)


async def test_where_the_key_is_full_no_slot_of_the_tenant_is_lost() -> None:
    clock = Hands()
    (gate,) = gates(limited(keys=KeyLimits(sockets=1), sockets=2), MemoryQuotas(clock), clock)
    leave = await gate.socket(WHO)
    for _ in range(5):
        with pytest.raises(LimitReached, match="of this key"):
            await gate.socket(WHO)
    await gate.socket(Principal(tenant="demo", key="k2"))
    with pytest.raises(LimitReached, match="of this tenant"):
        await gate.socket(Principal(tenant="demo", key="k3"))
    leave()
    await gate.socket(Principal(tenant="demo", key="k3"))


async def test_sessions_are_limited_by_the_minute_and_headers_tell_of_both() -> None:
    clock = Hands()
    made = limited(keys=KeyLimits(sessions_per_min=6), sessions_per_min=60)
    (gate,) = gates(made, MemoryQuotas(clock), clock)
    headers = rate_headers(await gate.opening(WHO))
    assert headers == {
        "RateLimit-Policy": '"sessions";q=6;w=60, "sessions";q=60;w=60',
        "RateLimit": '"sessions";r=5;t=10, "sessions";r=59;t=1',
    }
    assert rate_headers([]) == {}


# -- a real Valkey


async def test_two_gateways_share_a_limit_in_a_real_valkey(valkey_store: Valkey) -> None:
    """More is asked for than the limit, of both at once: what is let through is right to a tenth."""
    clients = [valkey.connect(valkey_store.url) for _ in range(2)]
    clock = SystemClock()
    made = limited(2, messages_per_s=200.0, messages_burst=400)
    left, right = (RateLimits(made, ValkeyQuotas(client), clock, Said()) for client in clients)
    began = clock.monotonic()
    through = 0
    while clock.monotonic() - began < 2.0:
        through += sum(await asyncio.gather(*(admitted(gate, tries=5) for gate in (left, right))))
        await asyncio.sleep(0.005)
    allowed = 400 + 200.0 * (clock.monotonic() - began)
    assert 0.9 * allowed <= through <= allowed + 1
    for client in clients:
        await client.aclose()


async def test_who_hangs_up_while_it_waits_for_a_slot_leaves_none_behind() -> None:
    clock = Hands()

    class Slow(MemoryQuotas):
        slow = True

        async def hold(self, subject: str, holder: str, *, used: int, wanted: int, most: int) -> Held:
            if "tenant" in subject and self.slow:
                await asyncio.Event().wait()
            return await super().hold(subject, holder, used=used, wanted=wanted, most=most)

    quotas = Slow(clock)
    (gate,) = gates(limited(keys=KeyLimits(sockets=1), sockets=2), quotas, clock)
    entering = asyncio.create_task(gate.socket(WHO))
    for _ in range(5):
        await asyncio.sleep(0)
    entering.cancel()
    await asyncio.wait([entering])
    quotas.slow = False
    await gate.socket(WHO)
