"""What is wrong gets one clear answer that names the field and the next move; nothing breaks."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.fleet import QUESTION, TestFleet, receive

JSON = {"Content-Type": "application/json"}


def problem(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document = answer.json()
    assert document["status"] == answer.status_code and document["title"] and document["detail"]
    return document


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"id": "m-1", "text": ""}, 422, "text"),
        ({"id": "m-1", "text": " \n\t"}, 422, "text"),
        ({"id": "", "text": "hello"}, 422, "id"),
        ({"id": "with space", "text": "hello"}, 422, "id"),
        ({"id": "m-1"}, 422, "text"),
        ({"id": "m-1", "text": 7}, 422, "text"),
        ({"id": "m-1", "text": "hello", "extra": 1}, 422, "extra"),
        ({"id": "m-1", "text": "x" * 70_000}, 413, "text"),
        ({"id": "m-1", "text": "x" * 300_000}, 413, "body"),
    ],
)
def test_messages(fleet: TestFleet, body: dict[str, Any], status: int, field: str) -> None:
    session = fleet.session()
    document = problem(fleet.http.post(f"/v1/sessions/{session}/messages", json=body))
    assert (document["status"], document["field"]) == (status, field)
    assert len(fleet.events(session)) == 1


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00binary", b'{"id": "m-1", "text": "\xff"}', b"{", b"[]", b"", b'"text"', b"null"]
)
def test_bodies_that_are_no_json_object(fleet: TestFleet, content: bytes) -> None:
    session = fleet.session()
    answer = fleet.http.post(f"/v1/sessions/{session}/messages", content=content, headers=JSON)
    assert problem(answer)["status"] == 422


def test_half_a_surrogate_pair(fleet: TestFleet) -> None:
    path = f"/v1/sessions/{fleet.session()}/messages"
    answer = fleet.http.post(path, content=rb'{"id": "m-1", "text": "\ud83d"}', headers=JSON)
    assert problem(answer)["field"] == "text"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/sessions/s_none", None),
        ("POST", "/v1/sessions/s_none/messages", {"id": "m-1", "text": "hello"}),
        ("GET", "/v1/sessions/s_none/events", None),
        ("GET", "/v1/sessions/s_none/stream", None),
        ("DELETE", "/v1/sessions/s_none", None),
        ("POST", "/v1/sessions", {"agent": "nobody"}),
        ("POST", "/v1/knowledge/none/search", {"query": "hello"}),
        ("DELETE", "/v1/knowledge/none/documents/x", None),
        ("GET", "/v1/nothing", None),
    ],
)
def test_what_is_not_there(fleet: TestFleet, method: str, path: str, body: Any) -> None:
    assert problem(fleet.http.request(method, path, json=body))["status"] == 404


@pytest.mark.parametrize("key", ["", "Bearer", "Bearer wrong", "Basic ZGV2", "Bearer a.b.c"])
def test_keys(fleet: TestFleet, key: str) -> None:
    answer = httpx2.get(f"{fleet.url}/v1/sessions", headers={"Authorization": key} if key else {})
    assert problem(answer)["status"] == 401
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_visitor_reaches_its_own_session_only(fleet: TestFleet) -> None:
    visit = httpx2.post(f"{fleet.url}/v1/web/visits", json={"agent": "bank"}).json()
    mine = {"Authorization": f"Bearer {visit['token']}"}
    assert httpx2.get(f"{fleet.url}/v1/sessions/{visit['session']}", headers=mine).status_code == 200
    other = fleet.session()
    assert problem(httpx2.get(f"{fleet.url}/v1/sessions/{other}", headers=mine))["status"] == 403
    assert problem(httpx2.get(f"{fleet.url}/v1/sessions", headers=mine))["status"] == 403
    search = httpx2.post(f"{fleet.url}/v1/knowledge/bank/search", json={"query": "x"}, headers=mine)
    assert problem(search)["status"] == 403


def test_a_seq_from_the_future(fleet: TestFleet) -> None:
    session = fleet.session()
    document = problem(fleet.http.get(f"/v1/sessions/{session}/stream?after=99"))
    assert (document["status"], document["field"]) == (422, "after")
    assert problem(fleet.http.get(f"/v1/sessions/{session}/stream?after=x"))["field"] == "after"


def test_a_closed_session_takes_no_messages(fleet: TestFleet) -> None:
    session = fleet.session()
    assert fleet.http.delete(f"/v1/sessions/{session}").json()["state"] == "closed"
    answer = fleet.http.post(f"/v1/sessions/{session}/messages", json={"id": "m-1", "text": "hello"})
    assert problem(answer)["status"] == 409


def test_an_idempotency_key_opens_one_session(fleet: TestFleet) -> None:
    def open_session(agent: str) -> httpx2.Response:
        return fleet.http.post("/v1/sessions", json={"agent": agent}, headers={"Idempotency-Key": "k-1"})

    first, again = open_session("bank"), open_session("bank")
    assert first.json()["id"] == again.json()["id"]
    assert problem(open_session("flotilla"))["status"] == 409


@pytest.mark.parametrize("path", ["search", "documents"])
@pytest.mark.parametrize("collection", ["UPPER", "..", "a b", "x" * 80])
def test_collection_names(fleet: TestFleet, path: str, collection: str) -> None:
    body = {"query": "x"} if path == "search" else {"documents": [{"id": "a", "text": "hello"}]}
    answer = fleet.http.post(f"/v1/knowledge/{collection}/{path}", json=body)
    assert answer.status_code in (404, 422)
    problem(answer)


def test_unreadable_frames_leave_the_socket_open_until_the_fifth(fleet: TestFleet) -> None:
    with fleet.socket(fleet.session()) as socket:
        list(receive(socket, until="session.opened"))
        for frame in ("not json", "{}", '{"type": "message", "id": 1, "text": "x"}', b"\x00\x01"):
            socket.send(frame)
            (error,) = receive(socket, until="error")
            assert error["problem"]["status"] == 422
        socket.send(json.dumps({"type": "message", "id": "m-1", "text": QUESTION}))
        list(receive(socket, until="reply.completed"))
        for _ in range(5):
            socket.send("not json")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(timeout=10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008


def test_a_refused_message_is_named_on_the_socket(fleet: TestFleet) -> None:
    with fleet.socket(fleet.session()) as socket:
        socket.send(json.dumps({"type": "message", "id": "m-1", "text": "  "}))
        *_, error = receive(socket, until="error")
        assert (error["id"], error["problem"]["field"]) == ("m-1", "text")


@pytest.mark.parametrize(("session", "key", "code"), [("s_none", "dev", 4422), ("s_none", "wrong", 4401)])
def test_a_socket_that_can_not_be_had_says_why(fleet: TestFleet, session: str, key: str, code: int) -> None:
    url = f"{fleet.url.replace('http', 'ws', 1)}/v1/sessions/{session}/ws"
    with connect(url, additional_headers={"Authorization": f"Bearer {key}"}) as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "error"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == code


def test_too_many_waiting_messages(fleet: TestFleet) -> None:
    session = fleet.session()
    answers = [
        fleet.http.post(f"/v1/sessions/{session}/messages", json={"id": f"m-{n}", "text": QUESTION})
        for n in range(40)
    ]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert refused and all(problem(answer)["status"] == 429 for answer in refused)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    fleet.http.delete(f"/v1/sessions/{session}")
