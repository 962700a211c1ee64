"""The gRPC door under random bytes: whatever comes gets a status that names no bug, and nothing stays open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.serving.librarian import RemoteLibrarian
from actors.serving.single import OneModel
from flotilla.rpc import errors
from flotilla.rpc import v1_pb2 as pb
from tests.actors.cluster import FAST, Cluster
from tests.serve import model_world
from tests.serve.conftest import OPERATOR_KEY, Gateway, _serving
from tests.serve.rpc_world import KEY, Rpc, serving

Code = grpc.StatusCode
BUGS = {Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS}
FILES = (pb.DESCRIPTOR, health_pb2.DESCRIPTOR)
METHODS = [
    (f"/{service.full_name}/{method.name}", method)
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
]
OF_MODELS = [(name, method) for name, method in METHODS if "Models/" in name]
OF_OTHERS = [(name, method) for name, method in METHODS if "Models/" not in name]
PATIENCE_S = 20.0
STREAM_S = 2.0  # a stream that waits for events ends with its deadline
READ_MAX = 3
EXAMPLES = 60
SETTINGS = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)

keys = st.sampled_from(
    ["authorization", "idempotency-key", "traceparent", "application", "x-y", "x-bin", "te-x"]
)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
metadata = st.lists(st.tuples(keys, values), max_size=4)


def messages(descriptor: Any) -> st.SearchStrategy[bytes]:
    """Requests of one method: built of its own fields with wild values, then cut, changed or made longer."""
    whole = st.fixed_dictionaries({}, optional={f.name: _value(f) for f in descriptor.fields if _value(f)})
    built = whole.map(lambda fields: descriptor._concrete_class(**fields).SerializeToString())
    return st.one_of(
        st.binary(max_size=200), built, st.builds(_mutated, built, st.integers(0), st.binary(max_size=4))
    )


def _mutated(body: bytes, at: int, more: bytes) -> bytes:
    at = at % (len(body) + 1)
    return body[:at] + more if at % 2 else body[:at] + more + body[at + 1 :]


def _value(field: Any) -> Any:
    """None for fields that are messages."""
    texts = st.one_of(
        st.sampled_from(["", "s_1", "m", "bank", "../x", "a b", "x" * 300]), st.text(max_size=20)
    )
    wild = st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-2, 3))
    return {field.TYPE_STRING: texts, field.TYPE_INT64: wild, field.TYPE_INT32: wild}.get(field.type)


async def outcome(rpc: Rpc, method: str, streaming: bool, body: bytes, sent: Any) -> Code:
    """The status of a call, of which the first few answers are read."""
    make = rpc.channel.unary_stream if streaming else rpc.channel.unary_unary
    call = make(method)(body, metadata=sent, timeout=STREAM_S if streaming else PATIENCE_S)
    try:
        if not streaming:
            await call
        else:
            for _ in range(READ_MAX):
                if await call.read() is grpc.aio.EOF:
                    break
    except grpc.RpcError as error:
        told = errors.from_rpc(error)
        assert error.code() not in BUGS, (method, body, told)
        assert told.detail
        return error.code()
    finally:
        call.cancel()
    return Code.OK


@pytest.fixture
async def world() -> AsyncIterator[tuple[Gateway, Rpc]]:
    async with _serving(cluster := Cluster(script=FAST)) as gateway, serving(gateway.app) as rpc:
        doors: Any = gateway.app.state.doors
        doors.model, doors.directory = OneModel(cluster.model), cluster.directory
        doors.knowledge = RemoteLibrarian(cluster.links, cluster.roster)  # there is none: it says so
        yield gateway, rpc


@pytest.mark.parametrize(("method", "descriptor"), OF_OTHERS, ids=[name for name, _ in OF_OTHERS])
async def test_no_bytes_break_a_method(world: tuple[Gateway, Rpc], method: str, descriptor: Any) -> None:
    gateway, rpc = world
    await gateway.cluster.open("s_1")
    await survive(rpc, method, descriptor, KEY)
    await rpc.emptied()
    again = await rpc.conversations.Get(pb.GetRequest(session="s_1"), metadata=KEY)
    assert again.state in ("open", "replying", "closed")


@pytest.mark.parametrize(("method", "descriptor"), OF_MODELS, ids=[name for name, _ in OF_MODELS])
async def test_no_bytes_break_a_method_of_models(method: str, descriptor: Any) -> None:
    async with model_world.world() as made, serving(made.app) as rpc:
        await made.serving("1")
        await survive(rpc, method, descriptor, (("authorization", f"Bearer {OPERATOR_KEY}"),))
        await rpc.emptied()
        assert (await made.show())["serving"]["stable"] == "m@1"


async def survive(rpc: Rpc, method: str, descriptor: Any, key: Any) -> None:
    """Takes wild requests all at once; those that are none are said to be."""
    found = await _examples(messages(descriptor.input_type), EXAMPLES)
    calls = [outcome(rpc, method, descriptor.server_streaming, body, key) for body in found]
    assert Code.INVALID_ARGUMENT in await asyncio.gather(*calls)


async def _examples(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Drawn by hypothesis outside of the loop, the same ones each time."""
    drawn: list[Any] = []

    @settings(max_examples=count, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def draw(value: Any) -> None:
        drawn.append(value)

    await asyncio.to_thread(draw)
    return drawn


async def test_no_metadata_breaks_a_call(world: tuple[Gateway, Rpc]) -> None:
    gateway, rpc = world
    await gateway.cluster.open("s_1")
    body = pb.GetRequest(session="s_1").SerializeToString()
    for sent in await _examples(metadata, 80):
        pairs = [(k, v.encode() if k.endswith("-bin") else v) for k, v in sent]
        code = await outcome(rpc, "/flotilla.v1.Conversations/Get", False, body, pairs)
        assert code in (Code.OK, Code.UNAUTHENTICATED)


async def test_what_is_no_method_is_said_to_be_none(world: tuple[Gateway, Rpc]) -> None:
    _, rpc = world
    for method in ("/flotilla.v1.Conversations/Nothing", "/nothing.Here/Open", "/flotilla.v1.Models/Search"):
        assert await outcome(rpc, method, False, b"", KEY) is Code.UNIMPLEMENTED


async def test_a_message_over_every_limit_is_refused(world: tuple[Gateway, Rpc]) -> None:
    _, rpc = world
    body = pb.SendRequest(session="s_1", id="m", text="x" * 5_000_000).SerializeToString()
    call = rpc.channel.unary_stream("/flotilla.v1.Conversations/Send")(body, metadata=KEY)
    with pytest.raises(grpc.RpcError) as raised:
        await call.read()
    assert raised.value.code() is Code.RESOURCE_EXHAUSTED


@SETTINGS
@given(st.binary(max_size=200))
def test_details_that_are_none_are_no_error_of_ours(raw: bytes) -> None:
    problem = errors.problem_of(raw)
    assert problem is None or problem.status
