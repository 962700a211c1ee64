"""Conversations over gRPC: the same session, the same events and the same refusals as over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from flotilla.core.errors import (
    Conflict,
    FlotillaError,
    Forbidden,
    NotFound,
    Refused,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from flotilla.rpc import errors, events
from flotilla.rpc import v1_pb2 as pb
from tests.actors.cluster import REPLY
from tests.serve.conftest import Gateway
from tests.serve.rpc_world import KEY, Rpc, serving

Code = grpc.StatusCode
QUESTION = "What does it cost?"


@pytest.fixture
async def rpc(gateway: Gateway) -> AsyncIterator[Rpc]:
    async with serving(gateway.app) as made:
        yield made


async def opened(rpc: Rpc, **fields: Any) -> pb.Session:
    return await rpc.conversations.Open(pb.OpenRequest(agent="bank", **fields), metadata=KEY)


def send(rpc: Rpc, session: str, id: str = "m-1", text: str = QUESTION, **fields: Any) -> Any:
    request = pb.SendRequest(session=session, id=id, text=text, **fields)
    return rpc.conversations.Send(request, metadata=KEY)


async def problem(call: Any) -> FlotillaError:
    """What a call ends with."""
    with pytest.raises(grpc.RpcError) as raised:
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    error = errors.from_rpc(raised.value)
    assert raised.value.code() is errors.code_of(error.status), raised.value
    return error


def http_form(event: pb.Event) -> dict[str, Any]:
    return events.as_dict(event)


async def test_a_turn_is_streamed_as_over_http(gateway: Gateway, rpc: Rpc) -> None:
    session = await opened(rpc)
    seen = [event async for event in send(rpc, session.id)]
    assert [seen[0].type, seen[1].type, seen[-1].type] == [
        "message.accepted",
        "reply.started",
        "reply.completed",
    ]
    deltas = [event.delta for event in seen if event.type == "reply.delta"]
    assert "".join(delta.text for delta in deltas) == seen[-1].reply.text == REPLY
    told = (await gateway.desk.get(f"/v1/sessions/{session.id}/events")).json()["events"]
    assert [http_form(event) for event in seen if event.type != "reply.delta"] == told[1:]


async def test_the_same_message_again_starts_nothing(rpc: Rpc) -> None:
    session = await opened(rpc)
    first, again = [[e async for e in send(rpc, session.id)] for _ in range(2)]
    assert first[-1] == again[-1] and first[0] == again[0]
    other = await problem(send(rpc, session.id, text="Something else"))
    assert isinstance(other, Conflict)


async def test_posted_over_http_and_followed_over_grpc(gateway: Gateway, rpc: Rpc) -> None:
    """Mid-reply, from the place of an event on: no gap, no repetition."""
    session = await opened(rpc)
    call = rpc.conversations.Follow(pb.FollowRequest(session=session.id), metadata=KEY)
    seen: list[pb.Event] = [await call.read()]
    await gateway.desk.post(f"/v1/sessions/{session.id}/messages", json={"id": "m-1", "text": QUESTION})
    while seen[-1].type != "reply.completed":
        seen.append(await call.read())
    call.cancel()
    assert [event.seq for event in seen if event.type != "reply.delta"] == [1, 2, 3, 4]
    cut = next(n for n, event in enumerate(seen) if event.type == "reply.delta")
    place = pb.FollowRequest(session=session.id, after=seen[cut].after, offset=seen[cut].offset)
    rest = rpc.conversations.Follow(place, metadata=KEY)
    assert (await rest.read()).type == "reply.completed"
    rest.cancel()


async def test_a_cancelled_follow_leaves_nothing_on_the_server(gateway: Gateway, rpc: Rpc) -> None:
    session = await opened(rpc)
    calls = [rpc.conversations.Follow(pb.FollowRequest(session=session.id), metadata=KEY) for _ in range(20)]
    assert [(await call.read()).type for call in calls] == ["session.opened"] * 20
    assert rpc.door.open == 20
    for call in calls:
        call.cancel()
    await gateway.cluster.until(lambda: rpc.door.open == 0)


async def test_a_deadline_ends_a_follow_and_frees_it(gateway: Gateway, rpc: Rpc) -> None:
    session = await opened(rpc)
    call = rpc.conversations.Follow(pb.FollowRequest(session=session.id), metadata=KEY, timeout=0.2)
    with pytest.raises(grpc.RpcError) as raised:
        async for _ in call:
            pass
    assert raised.value.code() is Code.DEADLINE_EXCEEDED
    await gateway.cluster.until(lambda: rpc.door.open == 0)
    late = rpc.conversations.Get(pb.GetRequest(session=session.id), metadata=KEY, timeout=-1)
    with pytest.raises(grpc.RpcError) as raised:
        await late
    assert raised.value.code() is Code.DEADLINE_EXCEEDED


async def test_a_follow_ends_with_its_session(rpc: Rpc) -> None:
    session = await opened(rpc)
    call = rpc.conversations.Follow(pb.FollowRequest(session=session.id), metadata=KEY)
    closed = await rpc.conversations.Close(pb.CloseRequest(session=session.id), metadata=KEY)
    assert closed.state == "closed"
    assert [event.type async for event in call] == ["session.opened", "session.closed"]
    assert isinstance(await problem(send(rpc, session.id)), Conflict)


async def test_a_gateway_that_goes_away_sends_its_followers_elsewhere(gateway: Gateway, rpc: Rpc) -> None:
    session = await opened(rpc)
    call = rpc.conversations.Follow(pb.FollowRequest(session=session.id), metadata=KEY)
    assert (await call.read()).type == "session.opened"
    gateway.app.state.doors.going.begin()
    error = await problem(call)
    assert isinstance(error, Unavailable) and error.retry_after_s


async def test_a_revoked_key_ends_what_it_follows(gateway: Gateway, rpc: Rpc) -> None:
    session, doors = await opened(rpc), gateway.app.state.doors
    call = rpc.conversations.Follow(pb.FollowRequest(session=session.id), metadata=KEY)
    assert (await call.read()).type == "session.opened"
    who = await doors.keys.of("dev")
    await doors.revocations.tell_revoked(who.key)
    assert isinstance(await problem(call), Unauthenticated)
    await gateway.cluster.until(lambda: rpc.door.open == 0)


async def test_sessions_are_shown_listed_and_paged(rpc: Rpc) -> None:
    opened_ = [await opened(rpc, customer="ann", metadata={"plan": "gold", "seats": 3}) for _ in range(3)]
    assert opened_[0].token and opened_[0].HasField("expires_at")
    shown = await rpc.conversations.Get(pb.GetRequest(session=opened_[0].id), metadata=KEY)
    assert (shown.id, shown.state, shown.customer, shown.seq) == (opened_[0].id, "open", "ann", 1)
    assert dict(shown.metadata) == {"plan": "gold", "seats": 3}
    page = await rpc.conversations.List(pb.ListRequest(limit=2), metadata=KEY)
    rest = await rpc.conversations.List(pb.ListRequest(limit=2, cursor=page.next), metadata=KEY)
    assert {s.id for s in [*page.sessions, *rest.sessions]} == {s.id for s in opened_}
    assert page.sessions[0].HasField("opened_at") and not rest.next


async def test_an_idempotency_key_opens_one_session(rpc: Rpc) -> None:
    key = (*KEY, ("idempotency-key", "k-1"))
    first, again = [await rpc.conversations.Open(pb.OpenRequest(agent="bank"), metadata=key) for _ in "12"]
    assert first.id == again.id
    other = rpc.conversations.Open(pb.OpenRequest(agent="flotilla"), metadata=key)
    assert isinstance(await problem(other), Conflict)


async def test_durable_events_by_the_page(gateway: Gateway, rpc: Rpc) -> None:
    session = await opened(rpc)
    [_ async for _ in send(rpc, session.id)]
    request = pb.ListEventsRequest(session=session.id, after=1, limit=2)
    page = await rpc.conversations.ListEvents(request, metadata=KEY)
    assert [(event.seq, event.after, event.type) for event in page.events] == [
        (2, 2, "message.accepted"),
        (3, 3, "reply.started"),
    ]


async def test_interrupt_says_what_it_stopped(rpc: Rpc) -> None:
    session = await opened(rpc)
    nothing = await rpc.conversations.Interrupt(pb.InterruptRequest(session=session.id), metadata=KEY)
    assert nothing.turn == ""


async def test_a_visitor_reaches_its_own_session_only(rpc: Rpc) -> None:
    mine, other = await opened(rpc), await opened(rpc)
    token = (("authorization", f"Bearer {mine.token}"),)
    shown = await rpc.conversations.Get(pb.GetRequest(session=mine.id), metadata=token)
    assert shown.id == mine.id
    for call in (
        rpc.conversations.Get(pb.GetRequest(session=other.id), metadata=token),
        rpc.conversations.Follow(pb.FollowRequest(session=other.id), metadata=token),
        rpc.conversations.Send(pb.SendRequest(session=other.id, id="m", text="x"), metadata=token),
        rpc.conversations.List(pb.ListRequest(), metadata=token),
        rpc.models.Watch(pb.WatchRequest(model="m"), metadata=token),
    ):
        assert isinstance(await problem(call), Forbidden)


@pytest.mark.parametrize(
    "metadata", [(), (("authorization", "Bearer wrong"),), (("authorization", "Basic x"),)]
)
async def test_without_a_key_nothing_is_told(rpc: Rpc, metadata: Any) -> None:
    calls = (
        rpc.conversations.Open(pb.OpenRequest(), metadata=metadata),
        rpc.conversations.Follow(pb.FollowRequest(session="s_1"), metadata=metadata),
        rpc.conversations.Send(pb.SendRequest(session="s_1", id="m", text="x"), metadata=metadata),
        rpc.knowledge.Search(pb.SearchRequest(collection="c", query="q"), metadata=metadata),
        rpc.models.Watch(pb.WatchRequest(model="m"), metadata=metadata),
    )
    for call in calls:
        assert isinstance(await problem(call), Unauthenticated)


async def test_what_is_wrong_names_the_field(rpc: Rpc) -> None:
    session = (await opened(rpc)).id
    follow, sent = rpc.conversations.Follow, rpc.conversations.Send
    for call, field, kind in (
        (follow(pb.FollowRequest(session=session, after=99), metadata=KEY), "after", Refused),
        (follow(pb.FollowRequest(session=session, after=-1), metadata=KEY), "after", Refused),
        (follow(pb.FollowRequest(session=session, offset=-1), metadata=KEY), "offset", Refused),
        (follow(pb.FollowRequest(session="s_none"), metadata=KEY), None, NotFound),
        (follow(pb.FollowRequest(), metadata=KEY), "session", Refused),
        (send(rpc, session, text=" "), "text", Refused),
        (send(rpc, session, id=""), "id", Refused),
        (send(rpc, session, while_talking="shout"), "while_talking", Refused),
        (send(rpc, session, person="x" * 500), "as", Refused),
        (send(rpc, session, text="x" * 70_000), "text", TooLarge),
        (send(rpc, session, text="x" * 300_000), "body", TooLarge),
        (sent(pb.SendRequest(session="../x", id="m", text="x"), metadata=KEY), "session", Refused),
        (rpc.conversations.Get(pb.GetRequest(session="a/messages"), metadata=KEY), "session", Refused),
        (rpc.conversations.List(pb.ListRequest(limit=0), metadata=KEY), "limit", Refused),
        (rpc.knowledge.Search(pb.SearchRequest(collection="c", query=" "), metadata=KEY), "query", Refused),
        (rpc.models.Steer(pb.SteerRequest(model="m"), metadata=KEY), "action", Refused),
    ):
        error = await problem(call)
        assert (type(error), error.field) == (kind, field), error


def raw(rpc: Rpc, method: str, body: bytes, *, stream: bool = False) -> Any:
    make = rpc.channel.unary_stream if stream else rpc.channel.unary_unary
    return make(f"/flotilla.v1.Conversations/{method}")(body, metadata=KEY)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"\xff\xff\xff", "body"),
        (b"\x0a\x02\xff\xfe", "body"),  # a string that is not UTF-8
        (b"\x0a\x7fcut", "body"),
        (pb.GetRequest(session="s").SerializeToString() + b"\x98\x06\x01", "99"),  # a field that isn't there
    ],
)
async def test_bytes_that_are_no_request(rpc: Rpc, body: bytes, field: str) -> None:
    for method, stream in (("Get", False), ("Follow", True)):
        error = await problem(raw(rpc, method, body, stream=stream))
        assert isinstance(error, Refused) and error.field == field


async def test_metadata_that_json_has_not(rpc: Rpc) -> None:
    request = pb.OpenRequest(agent="bank")
    request.metadata["limit"] = float("nan")
    error = await problem(rpc.conversations.Open(request, metadata=KEY))
    assert isinstance(error, Refused) and error.field == "metadata"


async def test_a_bug_is_told_as_one_and_not_what_it_was(
    rpc: Rpc, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await opened(rpc)

    async def broken(*_: Any, **__: Any) -> None:
        raise ValueError("a secret of the server")

    monkeypatch.setattr(gateway.app.state.doors.fleet, "ask", broken)
    for call in (
        rpc.conversations.Get(pb.GetRequest(session=session.id), metadata=KEY),
        send(rpc, session.id),
    ):
        error = await problem(call)
        assert error.status == 500 and "secret" not in str(error)


async def test_a_call_from_another_machine_is_turned_away_on_loopback(gateway: Gateway) -> None:
    """Serve's gRPC server listens on every address."""
    from serve.rpc import inside

    assert inside.is_local("ipv4:127.0.0.1:80") and inside.is_local("ipv6:%5B::1%5D:80")
    assert not inside.is_local("ipv4:10.0.0.7:80") and not inside.is_local("ipv6:[2001:db8::1]:80")
    assert not inside.is_local("") and inside.is_local("unix:/tmp/x")


async def test_many_streams_on_one_connection(gateway: Gateway, rpc: Rpc) -> None:
    sessions = [(await opened(rpc)).id for _ in range(10)]
    calls = [
        rpc.conversations.Follow(pb.FollowRequest(session=session), metadata=KEY)
        for session in sessions
        for _ in range(15)
    ]
    firsts = await asyncio.gather(*(call.read() for call in calls))
    assert {event.type for event in firsts} == {"session.opened"}
    for call in calls:
        call.cancel()
    await gateway.cluster.until(lambda: rpc.door.open == 0)


async def test_reply_failed_keeps_its_problem_as_json(rpc: Rpc) -> None:
    frame = {"seq": 4, "type": "reply.failed", "turn": "t", "data": {"problem": {"status": 503}}}
    packed = events.packed(json.dumps(frame).encode())
    assert events.as_dict(packed) == frame
