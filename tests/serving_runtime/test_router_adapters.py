"""Adapters at replicas of their base: loaded where they are asked for, and no harm to it."""

from __future__ import annotations

import asyncio

import pytest

from flotilla.core.errors import (
    AdapterMissing,
    FlotillaError,
)
from flotilla.core.versions import FLEET
from tests.serving_runtime.replica_rig import FOLDER, Rig, Running, ask, made_by, plan, version
from tests.timing import until


async def start_with_adapter(rig: Rig, replicas: int = 3) -> list[Running]:
    tuned = version("m@tuned", base="m@1", adapter=FOLDER)
    await rig.publish(plan("m@1", tuned))
    return await rig.start("m@1", replicas)


async def test_an_adapter_is_loaded_once_and_asked_for_where_it_is(rig: Rig) -> None:
    replicas = await start_with_adapter(rig)
    for n in range(12):
        parts = await rig.ask(ask(conversation=f"c{n}", model="m@tuned"))
        assert made_by(parts) == "m@tuned"
        if n == 6:
            await rig.look()  # the beats say it
            rig.clock.shift_s = 10.0
    assert [running.loads for running in replicas].count(1) == 1
    assert [bool(running.asked) for running in replicas].count(True) == 1
    assert {prompt.adapter for running in replicas for prompt in running.asked} == {"m@tuned"}
    assert rig.tally("m@tuned").replies == 12


async def test_an_adapter_that_had_to_go_is_loaded_again(rig: Rig) -> None:
    (only,) = await start_with_adapter(rig, 1)
    await rig.ask(ask(model="m@tuned"))
    await only.replica.weights.unload_adapter("m@tuned")
    assert made_by(await rig.ask(ask(model="m@tuned"))) == "m@tuned"
    assert only.loads == 2 and rig.tally("m@tuned").errors == 0


async def test_an_adapter_that_never_stays_is_unavailable(rig: Rig) -> None:
    (only,) = await start_with_adapter(rig, 1)
    only.broken = AdapterMissing("Gone again.")
    reply = asyncio.create_task(rig.ask(ask(model="m@tuned", tenant=FLEET)))
    await until(lambda: len(only.asked) >= 4)  # it may come to stay
    rig.clock.shift_s = 31.0
    with pytest.raises(AdapterMissing):
        await reply


async def test_an_adapter_that_does_not_fit_costs_its_base_nothing(rig: Rig) -> None:
    misfit = version("m@misfit", base="m@1", adapter="/nowhere")
    await rig.publish(plan("m@1", misfit))
    replicas = await rig.start("m@1", 2)
    for n in range(20):
        assert made_by(await rig.ask(ask(conversation=f"c{n}", model="m@misfit"))) == "m@1"
    assert (
        sum(running.loads for running in replicas) == 5 == rig.tally("m@misfit").errors
    )  # then its breaker opened
    assert len(rig.models.balance.serving(version("m@1"))) == 2
    with pytest.raises(FlotillaError):
        await rig.ask(ask(model="m@misfit", tenant=FLEET))


async def test_a_hot_adapter_gets_a_second_replica(rig: Rig) -> None:
    replicas = await start_with_adapter(rig)
    await rig.ask(ask(model="m@tuned"))
    home = next(running for running in replicas if running.asked)
    home.extra = {"queued_tokens": 50_000.0}
    await rig.look()
    await rig.ask(ask(model="m@tuned", conversation="other"))
    assert sum(running.loads for running in replicas) == 2
