"""The exceptions of placement."""

from __future__ import annotations

import pytest

from flotilla.core.errors import LimitReached, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.limits import LIMITS
from flotilla.core.ports import Pins
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey
from flotilla.stores.memory import MemoryPins

ONE, TWO = ActorId("t1", "session", "s_1"), ActorId("t2", "agent", "a.b:c-d")


async def test_a_pin_holds_until_it_is_changed_or_drawn(pins: Pins) -> None:
    await pins.pin(ONE, "h-1")
    await pins.pin(TWO, "h-1")
    assert await pins.pins() == {ONE: "h-1", TWO: "h-1"}
    await pins.pin(ONE, "h-2")
    assert await pins.pins() == {ONE: "h-2", TWO: "h-1"}
    for _ in range(2):
        await pins.unpin(ONE)
        assert await pins.pins() == {TWO: "h-1"}


async def test_past_the_limit_only_those_that_are_pinned_can_be(pins: Pins) -> None:
    await fill(pins)
    with pytest.raises(LimitReached) as refused:
        await pins.pin(ONE, "h-1")
    assert refused.value.next and len(await pins.pins()) == LIMITS.pins_max
    known = next(iter(await pins.pins()))
    await pins.pin(known, "h-2")
    await pins.unpin(known)
    await pins.pin(ONE, "h-1")
    assert (await pins.pins())[ONE] == "h-1"


async def fill(pins: Pins) -> None:
    """As many pins as there may be, but not one by one."""
    names = {str(ActorId("t", "k", f"n{n}")): "h-1" for n in range(LIMITS.pins_max)}
    if isinstance(pins, MemoryPins):
        for n in range(LIMITS.pins_max):
            await pins.pin(ActorId("t", "k", f"n{n}"), "h-1")
    else:
        assert isinstance(pins, valkey.ValkeyPins)
        await pins._client.hset("flotilla:pins", mapping=names)


async def test_while_valkey_is_down_pins_are_unavailable(valkey_server: Valkey) -> None:
    client = valkey.connect(valkey_server.url)
    pins = valkey.ValkeyPins(client)
    await pins.pin(ONE, "h-1")
    valkey_server.stop()
    try:
        for call in (pins.pin(TWO, "h"), pins.unpin(ONE), pins.pins()):
            with pytest.raises(Unavailable):
                await call
    finally:
        valkey_server.start()
    assert (await pins.pins())[ONE] == "h-1"
    await client.aclose()
