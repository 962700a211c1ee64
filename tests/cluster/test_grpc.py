"""The gRPC door of a real fleet, behind HAProxy: mixed with the other doors, by standard tools, and broken into."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from flotilla.core.errors import (
    Conflict,
    Forbidden,
    LimitReached,
    NotFound,
    Refused,
    TooLarge,
    Unauthenticated,
)
from flotilla.rpc import errors, events
from flotilla.rpc import v1_pb2 as pb
from flotilla.rpc import v1_pb2_grpc as stubs
from tests.docs.test_examples import module
from tests.fleet import QUESTION, TestFleet, join

KEY = (("authorization", "Bearer dev"),)
STREAMS = 250  # more than HAProxy lets a connection have if nobody tells it
SEED = 20261122


@pytest.fixture
def channel(fleet: TestFleet) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(fleet.grpc) as channel:
        yield channel


@pytest.fixture
def conversations(channel: grpc.Channel) -> Any:
    return stubs.ConversationsStub(channel)


def follow(conversations: Any, session: str, after: int = 0, offset: int = 0) -> Any:
    return conversations.Follow(pb.FollowRequest(session=session, after=after, offset=offset), metadata=KEY)


def until(stream: Any, type: str) -> list[pb.Event]:
    seen: list[pb.Event] = []
    for event in stream:
        seen.append(event)
        if event.type == type:
            return seen
    raise AssertionError(f"no {type} in {[event.type for event in seen]}")


def refusal(call: Any) -> Exception:
    with pytest.raises(grpc.RpcError) as raised:
        list(call())
    return errors.from_rpc(raised.value)


def followers(fleet: TestFleet, session: str) -> int:
    listed = fleet.http.get("/v1/actors", params={"kind": "session", "limit": 500}).json()["actors"]
    return next(one["followers"] for one in listed if one["actor"] == f"session/{session}")


def test_posted_over_http_followed_over_grpc_and_gone_on_over_sse(
    fleet: TestFleet, conversations: Any
) -> None:
    session = fleet.session()
    stream = follow(conversations, session)
    fleet.http.post(f"/v1/sessions/{session}/messages", json={"id": "m-1", "text": QUESTION})
    seen = until(stream, "reply.delta")
    stream.cancel()
    last = seen[-1]
    rest = until(follow(conversations, session, last.after, last.offset), "reply.completed")
    told = [events.as_dict(event) for event in [*seen, *rest] if event.type]
    assert join(told) == rest[-1].reply.text != ""
    assert [event["seq"] for event in told if event["type"] != "reply.delta"] == [1, 2, 3, 4]
    assert [event for event in told if event["type"] != "reply.delta"] == fleet.events(session)


def test_a_message_over_grpc_is_seen_on_the_socket(fleet: TestFleet, conversations: Any) -> None:
    session = fleet.session()
    sent = list(conversations.Send(pb.SendRequest(session=session, id="m-1", text=QUESTION), metadata=KEY))
    assert [sent[0].type, sent[-1].type] == ["message.accepted", "reply.completed"]
    assert "".join(e.delta.text for e in sent if e.type == "reply.delta") == sent[-1].reply.text
    assert sent[-1].reply.timing.total > 0
    with fleet.socket(session) as ws:
        seen = [json.loads(ws.recv(timeout=10)) for _ in range(2)]
    assert seen[1] == events.as_dict(sent[0])


def test_a_key_opens_one_session_over_two_doors(fleet: TestFleet, conversations: Any) -> None:
    key = (*KEY, ("idempotency-key", "k-two-doors"))
    session = conversations.Open(pb.OpenRequest(agent="bank"), metadata=key)
    again = conversations.Open(pb.OpenRequest(agent="bank"), metadata=key)
    other = fleet.http.post(
        "/v1/sessions", json={"agent": "flotilla"}, headers={"Idempotency-Key": "k-two-doors"}
    )
    assert session.id == again.id and other.status_code == 409


def test_what_the_page_shows_runs(fleet: TestFleet) -> None:
    page = module("docs/doors.md")
    assert "95 dollars" in page.ask(fleet.grpc, "dev", QUESTION)
    assert isinstance(page.refusal(fleet.grpc, "dev"), NotFound)


def test_search_finds_what_http_finds(fleet: TestFleet, channel: grpc.Channel) -> None:
    request = pb.SearchRequest(collection="bank", query=QUESTION, limit=3)
    found = stubs.KnowledgeStub(channel).Search(request, metadata=KEY).hits
    told = fleet.http.post("/v1/knowledge/bank/search", json={"query": QUESTION, "limit": 3}).json()["hits"]
    assert [hit.passage.id for hit in found] == [hit["passage"]["id"] for hit in told]
    assert found[0].passage.text == told[0]["passage"]["text"]


def test_models_are_listed(channel: grpc.Channel) -> None:
    listed = stubs.ModelsStub(channel).List(pb.ListModelsRequest(), metadata=KEY).models
    assert any(model.stable and model.replicas for model in listed)


def test_standard_tools_find_their_way(channel: grpc.Channel) -> None:
    """Health and reflection, as load balancers and grpcurl use them."""
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ("", "flotilla.v1.Conversations"):
        assert health.Check(health_pb2.HealthCheckRequest(service=service)).status == serving
    assert next(iter(health.Watch(health_pb2.HealthCheckRequest()))).status == serving
    assert isinstance(refusal(lambda: [health.Check(health_pb2.HealthCheckRequest(service="x"))]), NotFound)
    reflected = ProtoReflectionDescriptorDatabase(channel)
    assert "flotilla.v1.Conversations" in reflected.get_services()
    service = DescriptorPool(reflected).FindServiceByName("flotilla.v1.Conversations")
    assert "Follow" in service.methods_by_name


def test_refusals_are_those_of_http(fleet: TestFleet, conversations: Any) -> None:
    session = fleet.session()

    def send(session: str, metadata: Any = KEY, **fields: Any) -> Any:
        request = pb.SendRequest(**({"session": session, "id": "m-1", "text": "hello"} | fields))
        return lambda: conversations.Send(request, metadata=metadata)

    future = refusal(lambda: follow(conversations, session, 99))
    assert isinstance(future, Refused) and future.field == "after"
    assert isinstance(refusal(send("s_none")), NotFound)
    assert isinstance(refusal(send(session, ())), Unauthenticated)
    assert isinstance(refusal(send(session, (("authorization", "Bearer a.b.c"),))), Unauthenticated)
    assert isinstance(refusal(send(session, text="x" * 300_000)), TooLarge)
    assert isinstance(refusal(send(session, text="x" * 5_000_000)), TooLarge)
    visit = fleet.http.post("/v1/web/visits", json={"agent": "bank"}).json()
    assert isinstance(refusal(send(session, (("authorization", f"Bearer {visit['token']}"),))), Forbidden)
    fleet.http.delete(f"/v1/sessions/{session}")
    assert isinstance(refusal(send(session)), Conflict)


def test_too_many_waiting_messages_say_when_to_try_again(fleet: TestFleet, conversations: Any) -> None:
    session = fleet.session()
    for n in range(17):
        fleet.http.post(f"/v1/sessions/{session}/messages", json={"id": f"m-{n}", "text": QUESTION})
    request = pb.SendRequest(session=session, id="m-over", text=QUESTION)
    error = refusal(lambda: conversations.Send(request, metadata=KEY))
    assert isinstance(error, LimitReached) and error.retry_after_s
    fleet.http.delete(f"/v1/sessions/{session}")


def test_hundreds_of_streams_on_one_connection_and_none_left_behind(
    fleet: TestFleet, conversations: Any
) -> None:
    session = fleet.session()
    streams = [follow(conversations, session) for _ in range(STREAMS)]
    with ThreadPoolExecutor(16) as pool:
        assert {event.type for event in pool.map(next, streams)} == {"session.opened"}
    assert followers(fleet, session) == STREAMS
    for stream in streams:
        stream.cancel()
    deadline = time.monotonic() + 20
    while followers(fleet, session):
        assert time.monotonic() < deadline, "its actor would stay awake for ever"


def test_bytes_that_are_no_grpc_leave_the_door_standing(fleet: TestFleet, conversations: Any) -> None:
    """Below the messages: random bytes, a preface that breaks off, frames that are none."""
    chance, (host, _, port) = random.Random(SEED), fleet.grpc.partition(":")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    gateway = fleet.process("gateway")
    for n in range(60):
        noise = chance.randbytes(chance.randint(1, 400))
        with socket.create_connection((host, int(port)), timeout=5) as raw:
            raw.sendall((preface if n % 3 else b"") + noise)
    assert gateway.is_running() and psutil.pid_exists(gateway.pid)
    session = conversations.Open(pb.OpenRequest(agent="bank"), metadata=KEY, timeout=20)
    assert session.state == "open"


def test_no_other_address_reaches_a_fleet_on_loopback(fleet: TestFleet) -> None:
    """HAProxy listens where it is told to."""
    port = int(fleet.grpc.rpartition(":")[2])
    listening = {
        c.laddr.ip for c in psutil.net_connections("tcp4") if c.status == "LISTEN" and c.laddr.port == port
    }
    assert listening == {"127.0.0.1"}
