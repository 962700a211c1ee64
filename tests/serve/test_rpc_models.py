"""Models over gRPC: looking, swapping, steering, watching; who may, and what is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from flotilla.core.errors import FlotillaError, Forbidden, NotFound, Refused
from flotilla.rpc import errors, events
from flotilla.rpc import v1_pb2 as pb
from tests.serve import model_world
from tests.serve.conftest import OPERATOR_KEY, TENANT_KEY
from tests.serve.model_world import World
from tests.serve.rpc_world import Rpc, serving

OPERATOR = (("authorization", f"Bearer {OPERATOR_KEY}"),)
TENANT = (("authorization", f"Bearer {TENANT_KEY}"),)


@pytest.fixture
async def world() -> AsyncIterator[tuple[World, Rpc]]:
    async with model_world.world() as made, serving(made.app) as rpc:
        yield made, rpc


async def refusal(call: grpc.aio.Call) -> FlotillaError:
    with pytest.raises(grpc.RpcError) as raised:
        await (call.read() if hasattr(call, "read") else call)  # type: ignore[attr-defined]
    return errors.from_rpc(raised.value)


async def test_a_swap_is_begun_steered_and_watched(world: tuple[World, Rpc]) -> None:
    made, rpc = world
    await made.serving("1", "2")
    watched = rpc.models.Watch(pb.WatchRequest(model="m"), metadata=TENANT)
    order = {"steps": [{"canary": {"percent": 50}, "hold_s": 600}]}
    key = (*OPERATOR, ("idempotency-key", "k-1"))
    request = pb.SwapRequest(model="m", to="2")
    request.order.update(order)
    begun, again = [await rpc.models.Swap(request, metadata=key) for _ in "12"]
    assert begun.swap.id == again.swap.id and begun.swap.to == "m@2" and begun.swap.from_version == "m@1"
    await made.reach("canary")
    shown = await rpc.models.Get(pb.GetModelRequest(model="m"), metadata=TENANT)
    assert (shown.stable, shown.swap.stage, shown.document["name"]) == ("m@1", "canary", "m")
    steer = pb.SteerRequest(model="m", action=pb.SteerRequest.ROLLBACK, reason="tried enough")
    await rpc.models.Steer(steer, metadata=OPERATOR)
    await made.reach("rolled_back")
    seen = [events.as_dict(await watched.read())]
    while seen[-1]["type"] != "swap.ended":
        seen.append(events.as_dict(await watched.read()))
    watched.cancel()
    told = (await made.tenant.get("/v1/models/m/history")).json()["events"]
    assert [event for event in seen if event["type"] != "swap.figures"] == told
    (line,) = (await rpc.models.List(pb.ListModelsRequest(), metadata=TENANT)).models
    assert (line.name, line.stable, line.versions, line.replicas) == ("m", "m@1", 2, 2)


async def test_only_an_operator_changes_models(world: tuple[World, Rpc]) -> None:
    made, rpc = world
    await made.serving("1")
    for call in (
        rpc.models.Swap(pb.SwapRequest(model="m", to="2"), metadata=TENANT),
        rpc.models.Steer(pb.SteerRequest(model="m", action=pb.SteerRequest.PAUSE), metadata=TENANT),
    ):
        assert isinstance(await refusal(call), Forbidden)


async def test_what_is_wrong_with_models_names_the_field(world: tuple[World, Rpc]) -> None:
    made, rpc = world
    await made.serving("1")
    wild = pb.SwapRequest(model="m", to="2")
    wild.order["shadow_share"] = float("inf")
    for call, kind, field in (
        (rpc.models.Get(pb.GetModelRequest(model="a/b"), metadata=TENANT), Refused, "model"),
        (rpc.models.Get(pb.GetModelRequest(model="none"), metadata=TENANT), NotFound, None),
        (rpc.models.Watch(pb.WatchRequest(model="m", after=99), metadata=TENANT), Refused, "after"),
        (rpc.models.Watch(pb.WatchRequest(model="m", after=-1), metadata=TENANT), Refused, "after"),
        (rpc.models.Swap(wild, metadata=OPERATOR), Refused, "order"),
        (rpc.models.Steer(pb.SteerRequest(model="m", action=77), metadata=OPERATOR), Refused, "action"),
    ):
        error = await refusal(call)
        assert isinstance(error, kind) and (field is None or error.field == field), error
