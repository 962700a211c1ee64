"""When all places for adapters are in use: who has asked for one waits for it, and isn't given its base's words."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from flotilla.core.errors import Overloaded
from flotilla.core.generation import Piece
from tests.serving_runtime.replica_rig import FOLDER, Rig, Running, ask, made_by, plan, version
from tests.timing import until


class Places:
    """The engine's, that are all in use for the first `taken` times that somebody wants one."""

    def __init__(self, running: Running, taken: int) -> None:
        self._load = running.engine.load_adapter
        self.taken = taken
        running.engine.load_adapter = self.load_adapter  # type: ignore[method-assign]

    async def load_adapter(self, id: str, folder: str) -> None:
        self.taken -= 1
        if self.taken >= 0:
            raise Overloaded("All 1 places for adapters are in use.", field="adapter")
        await self._load(id, folder)


async def start(rig: Rig) -> Running:
    tuned = version("m@tuned", base="m@1", adapter=FOLDER)
    await rig.publish(plan("m@1", tuned))
    (only,) = await rig.start("m@1")
    return only


async def test_an_adapter_waits_for_a_place_and_its_base_does_not_answer_instead(rig: Rig) -> None:
    only = await start(rig)
    Places(only, taken=2)
    assert made_by(await rig.ask(ask(model="m@tuned"))) == "m@tuned"
    assert only.loads == 3 and rig.models.fallbacks.fell_back == 0
    assert rig.tally("m@tuned").errors == 0


async def test_a_place_that_another_adapter_takes_again_is_waited_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between loading it and asking for it: twice, as often as one attempt loads it."""
    only = await start(rig)
    load, stolen = only.engine.load_adapter, 0

    async def load_and_lose(id: str, folder: str) -> None:
        nonlocal stolen
        await load(id, folder)
        if stolen < 2:
            stolen += 1
            await only.engine.unload_adapter(id)

    monkeypatch.setattr(only.engine, "load_adapter", load_and_lose)
    assert made_by(await rig.ask(ask(model="m@tuned"))) == "m@tuned"
    assert stolen == 2 and rig.models.fallbacks.fell_back == 0


async def test_it_does_not_wait_longer_than_for_a_first_word(rig: Rig) -> None:
    only = await start(rig)
    places = Places(only, taken=1_000)
    reply = asyncio.create_task(rig.ask(ask(model="m@tuned")))
    await until(lambda: places.taken < 1_000)
    rig.clock.shift_s = 31.0
    assert made_by(await reply) == "m@1"


async def test_what_has_begun_with_an_adapter_waits_too(rig: Rig) -> None:
    only = await start(rig)
    begun = ask(model="m@tuned")
    whole = await rig.ask(begun)
    await only.replica.weights.unload_adapter("m@tuned")
    Places(only, taken=1)
    said = "".join(part.text for part in whole[:2] if isinstance(part, Piece))
    rest = await rig.ask(msgspec.structs.replace(begun, said=said))
    assert made_by(rest) == "m@tuned"
