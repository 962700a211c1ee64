"""HTTP and WebSocket of a real fleet under wild requests, and one conversation through all its doors at once.
FLOTILLA_FUZZ_CASES makes it longer, FLOTILLA_FUZZ_SEED another one."""

from __future__ import annotations

import json
import os
import socket as sockets_of_the_system
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from hypothesis import HealthCheck, given, seed, settings
from schemathesis import GenerationMode
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from flotilla.rpc import v1_pb2 as pb
from flotilla.rpc import v1_pb2_grpc as stubs
from tests.fleet import QUESTION, TestFleet, join, receive
from tests.serve import wild_frames as wild
from tests.serve.http_fuzz import Caller, flaws, operations
from tests.serve.test_socket_fuzz import frames_of

CASES = int(os.environ.get("FLOTILLA_FUZZ_CASES", "0"))
SEED = int(os.environ.get("FLOTILLA_FUZZ_SEED", "0"))
PATIENCE_S = 10.0
BUSY, TRIES = 503, 20
ANSWER_S = 1.0  # then it has none to half a request
KEY = (("authorization", "Bearer dev"),)
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def caller(fleet: TestFleet) -> Iterator[Caller]:
    made = Caller(fleet.url, "dev", SEED)
    yield made
    made.session.close()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_operation_answers_as_the_document_says(
    fleet: TestFleet, caller: Caller, mode: GenerationMode
) -> None:
    document = fleet.http.get("/openapi.json").json()
    session = fleet.session()
    wrong: list[str] = []
    for operation in operations(document):
        wrong += caller.fuzz(operation, mode, CASES or 6)
        if "{session}" in operation.path and operation.method != "delete":
            wrong += caller.fuzz(operation, mode, CASES or 6, path_parameters={"session": session})
    assert not wrong, "\n".join(wrong)
    assert fleet.http.get("/readyz").status_code == 200 and caller.found[422] > 20, caller.found


# Method, path, body; status, and the field that is named.
FOUND: list[tuple[str, str, bytes, int, str | None]] = [
    ("GET", "/web/" + "a" * 400, b"", 404, None),
    ("GET", "/web/..%2f..%2fetc%2fpasswd", b"", 404, None),
    ("GET", "/web/%00", b"", 404, None),
    ("GET", "/v1/sessions?cursor=%00", b"", 422, "cursor"),
    ("GET", "/v1/sessions?limit=1&limit=x", b"", 422, "limit"),
    ("GET", "/v1/sessions?limit=" + "9" * 5000, b"", 422, "limit"),
    ("GET", "/v1/keys?cursor=%00", b"", 422, "cursor"),
    ("GET", "/v1/keys/%00", b"", 422, "key"),
    ("POST", "/v1/keys", b'{"name": "a\\u0000"}', 422, "name"),
    ("DELETE", "/v1/letters/%00", b"", 422, "id"),
    ("POST", "/v1/letters/%00/replay", b"", 422, "id"),
    ("GET", f"/v1/actors/session/x/journal?after={10**30}", b"", 422, "after"),
    ("POST", "/v1/sessions", b'{"metadata": {"a": "\\ud800"}}', 422, "metadata"),
    ("POST", "/v1/sessions", b'{"metadata": {"a": NaN}}', 422, "metadata"),
    ("POST", "/v1/sessions", b'{"metadata": {"a": 1e999}}', 422, "metadata"),
    ("POST", "/v1/sessions", b'{"metadata": {"a": %d}}' % 2**70, 422, "metadata"),
    ("POST", "/v1/sessions", b'{"agent": "\\ud800"}', 422, "agent"),
    ("POST", "/v1/sessions", b"[" * 100_000, 422, "body"),
    ("POST", "/v1/sessions/s/messages", b'{"id": "\\ud800", "text": "x"}', 422, "id"),
    ("PATCH", "/v1/sessions", b"", 405, None),
    ("GET", "/openai/v1/nothing", b"", 404, None),
]


@pytest.mark.parametrize("case", FOUND, ids=lambda case: f"{case[0]} {case[1][:30]} {case[4]}")
def test_what_fuzzing_found(fleet: TestFleet, case: tuple[str, str, bytes, int, str | None]) -> None:
    method, path, body, status, field = case
    answer = fleet.http.request(method, path, headers=JSON, content=body)
    assert (answer.status_code, flaws(answer)) == (status, []), answer.text
    assert answer.json().get("field") == field
    assert status != 405 or set(answer.headers["allow"].split(", ")) <= {"GET", "POST"}


@pytest.mark.parametrize("name", [b"X-Request-Id", b"X-Session-Id", b"serve_multiplexed_model_id"])
def test_a_header_that_is_no_text_is_as_if_it_had_not_come(fleet: TestFleet, name: bytes) -> None:
    asked = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + name + b": \xff\xfe\r\n\r\n"
    assert spoken(fleet, asked).startswith(b"HTTP/1.1 200 ")


def spoken(fleet: TestFleet, asked: bytes, more: bytes = b"") -> bytes:
    """What comes back over one connection: `more` is said once there is an answer to what was asked."""
    address = urlsplit(fleet.url)
    assert address.hostname and address.port
    with sockets_of_the_system.create_connection((address.hostname, address.port), ANSWER_S) as raw:
        found = bytearray()
        try:
            raw.sendall(asked)
            found += raw.recv(65536)  # HAProxy drops who has hung up before its request is passed on
            raw.sendall(more)
            raw.shutdown(sockets_of_the_system.SHUT_WR)
            while data := raw.recv(65536):
                found += data
        except (OSError, TimeoutError):  # closed over what we still had to say, or waiting for the rest of it
            pass
    return bytes(found)


def sockets_open(fleet: TestFleet) -> float:
    text = fleet.http.get("/metrics").text
    return next(
        float(line.split()[1]) for line in text.splitlines() if line.startswith("flotilla_open_sockets ")
    )


def test_no_bytes_break_the_socket_of_a_gateway(fleet: TestFleet) -> None:
    session, before, answered = fleet.session(), sockets_open(fleet), list[bytes]()
    asked = wild.handshake(f"/v1/sessions/{session}/ws")
    with fleet.socket(fleet.session()) as neighbour:
        list(receive(neighbour, until="session.opened"))

        @seed(SEED)
        @settings(
            max_examples=CASES or 40,
            database=None,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
                HealthCheck.filter_too_much,
            ],
        )
        @given(wild.streams, wild.handshakes(session))
        def attack(stream: bytes, greeting: bytes) -> None:
            spoken(fleet, greeting)
            head, _, rest = spoken(fleet, asked, stream).partition(b"\r\n\r\n")
            events = frames_of(rest) if head.startswith(b"HTTP/1.1 101 ") else []
            answered.append(head[:12])
            assert all(e["problem"]["status"] < 500 for e in events if e["type"] == "error"), events

        attack()
        assert answered.count(b"HTTP/1.1 101") > len(answered) * 0.9, answered
        neighbour.send(json.dumps({"type": "message", "id": "m-1", "text": QUESTION}))
        list(receive(neighbour, until="reply.completed"))
    until = time.monotonic() + PATIENCE_S
    while sockets_open(fleet) > before:
        assert time.monotonic() < until, "sockets stay behind"


# -- several devices, several doors


def test_a_message_that_comes_through_every_door_at_once_starts_one_turn(fleet: TestFleet) -> None:
    session = fleet.session()
    body = {"id": "m-1", "text": QUESTION}

    def over_http(_: int) -> str:
        answer = fleet.http.post(f"/v1/sessions/{session}/messages", json=body)
        return f"seq {answer.json()['seq']}" if answer.status_code == 202 else f"{answer} {answer.text}"

    def over_grpc(_: int) -> str:
        with grpc.insecure_channel(fleet.grpc) as channel:
            request = pb.SendRequest(session=session, id="m-1", text=QUESTION)
            stream = stubs.ConversationsStub(channel).Send(request, metadata=KEY, timeout=PATIENCE_S)
            return first_of(stream)

    with fleet.socket(session) as phone, fleet.socket(session) as tablet, ThreadPoolExecutor(12) as pool:
        doors = (over_http, over_grpc)
        asked = [(over.__name__, pool.submit(patiently, over, n)) for n in range(4) for over in doors]
        for device in (phone, tablet) * 2:
            device.send(json.dumps({"type": "message", **body}))
        got = [(door, told(one)) for door, one in asked]
        seen = [heard("phone", phone), heard("tablet", tablet)]
    recorded = fleet.events(session)
    errors = [event for events in seen for event in events if event["type"] == "error"]
    refused = [event for event in errors if event["problem"]["status"] != BUSY]
    assert len({what for _, what in got}) == 1 and not refused, (got, refused, recorded)
    assert [event["type"] for event in recorded].count("message.accepted") == 1, recorded
    assert durable(seen[0]) == recorded, "the phone's events and the record"
    assert durable(seen[1]) == recorded, "the tablet's events and the record"
    assert join(seen[0]) == join(seen[1]) == seen[0][-1]["data"]["text"]


def patiently(over: Callable[[int], str], n: int) -> str:
    """As clients do: what is refused for a moment is said again under its id. The fleet has just been fuzzed."""
    got = over(n)
    for _ in range(TRIES):
        if not got.startswith((f"<Response [{BUSY}", f"{grpc.StatusCode.UNAVAILABLE}")):
            break
        time.sleep(0.5)
        got = over(n)
    return got


def first_of(stream: Any) -> str:
    """The first event, or why there is none; those without a type keep the line open."""
    try:
        return next((f"seq {event.seq}" for event in stream if event.type), "no event")
    except grpc.RpcError as error:
        return f"{error.code()} {error.details()}"


def told(one: Future[str]) -> str:
    """What came of it, whatever that was."""
    error = one.exception()
    return one.result() if error is None else repr(error)


def heard(name: str, device: ClientConnection) -> list[dict[str, Any]]:
    """Up to the end of the reply. A device that doesn't hear it says what it heard."""
    events: list[dict[str, Any]] = []
    try:
        for event in receive(device, until="reply.completed"):
            events.append(event)
    except (TimeoutError, ConnectionClosed) as error:
        pytest.fail(f"The {name} heard {[event['type'] for event in events]}, then {error!r}.")
    return events


def test_devices_that_talk_at_the_same_time_see_the_same_order(fleet: TestFleet) -> None:
    session = fleet.session()
    with fleet.socket(session) as phone, fleet.socket(session) as tablet:
        for n in range(3):
            for name, device in (("phone", phone), ("tablet", tablet)):
                device.send(json.dumps({"type": "message", "id": f"{name}-{n}", "text": QUESTION}))
                device.send(json.dumps({"type": "message", "id": f"{name}-0", "text": QUESTION}))
        seen = [_turns(device, 6) for device in (phone, tablet)]
    assert durable(seen[0]) == durable(seen[1]) == fleet.events(session)
    said = [event["data"]["id"] for event in seen[0] if event["type"] == "message.accepted"]
    assert sorted(said) == [f"{name}-{n}" for name in ("phone", "tablet") for n in range(3)]
    assert [id for id in said if id.startswith("phone")] == ["phone-0", "phone-1", "phone-2"]


def _turns(device: ClientConnection, count: int) -> list[dict[str, Any]]:
    return [event for _ in range(count) for event in receive(device, until="reply.completed")]


def durable(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] not in ("reply.delta", "reply.rewound")]
