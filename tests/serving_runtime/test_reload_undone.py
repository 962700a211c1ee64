"""A swap in place that is turned back while a replica still loads the new weights."""

from __future__ import annotations

import asyncio

import pytest

from actors.serving import swap_loading
from actors.serving.sight import Replicas
from actors.serving.swap_loading import Loading
from actors.serving.swap_needs import SwapNeeds
from flotilla.core.swap_facts import Do
from flotilla.core.swap_orders import SwapOrder
from tests.actors.membership import LOG
from tests.serving_runtime.replica_rig import Rig, Running, version
from tests.timing import until

NEW, OLD = version("m@2"), version("m@1")


class Slow:
    """Weights that load once `go_on` is set."""

    def __init__(self, running: Running) -> None:
        self._reload = running.engine.reload
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def reload(self, folder: str, name: str) -> None:
        self.begun.set()
        await self.go_on.wait()
        await self._reload(folder, name)


async def test_a_reload_that_was_begun_is_waited_for_and_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap_loading, "READ_BY_ALL_S", 0.0)
    monkeypatch.setattr(swap_loading, "LOOK_EVERY_S", 0.01)
    rig = Rig()
    (only,) = await rig.start("m@1")
    slow = Slow(only)
    monkeypatch.setattr(only.engine, "reload", slow.reload)
    begun = asyncio.create_task(only.replica.weights.reload(NEW))
    await slow.begun.wait()
    back = asyncio.create_task(undone(rig))
    await until(lambda: back.done() or "reload" in only.methods)
    assert not back.done() and only.replica.version == OLD
    slow.go_on.set()
    await asyncio.gather(begun, back)
    assert only.replica.version == OLD
    await rig.aclose()


async def undone(rig: Rig) -> None:
    needs = SwapNeeds(
        model=rig.models,
        tallies=rig.tallies,
        replicas=Replicas(rig.links, rig.roster, lambda _: None),
        clock=rig.clock,
        log=LOG,
    )
    effect = Do(
        swap="s",
        stage="loading",
        step=0,
        attempt=1,
        stable=OLD.id,
        candidate=NEW,
        order=SwapOrder(in_place=True, load_max_s=10.0),
        undo=True,
    )
    await Loading(needs, effect, {OLD.id: OLD}.__getitem__, 1).load()
