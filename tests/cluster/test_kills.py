"""Processes die while they talk; customers don't notice. Real Ray, PostgreSQL and Valkey."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.fleet import QUESTION, TestFleet, join, receive


@pytest.fixture(scope="module")
def slow() -> Iterator[TestFleet]:
    """Replies slow enough to be killed in the middle."""
    fleet = TestFleet(FLOTILLA_SCRIPTED_TOKEN_S="0.25")
    try:
        fleet.up().know()
        yield fleet
    finally:
        fleet.down()


@pytest.mark.parametrize("victim", ["ray::Host", "ray::Model"])
def test_a_killed_process_costs_no_word(slow: TestFleet, victim: str) -> None:
    session = slow.session()
    with slow.socket(session) as socket:
        socket.send(json.dumps({"type": "message", "id": "m-1", "text": QUESTION}))
        seen = list(receive(socket, until="reply.delta"))
        slow.process(victim).kill()
        seen += receive(socket, until="reply.completed")
    assert_whole(slow, session, seen)


def test_a_reply_is_finished_though_nobody_watches(slow: TestFleet) -> None:
    session = slow.session()
    with slow.socket(session) as socket:
        socket.send(json.dumps({"type": "message", "id": "m-1", "text": QUESTION}))
        seen = list(receive(socket, until="reply.delta"))
    slow.process("ray::Host").kill()
    with slow.socket(session, after=str(max(event["seq"] for event in seen))) as socket:
        seen += receive(socket, until="reply.completed")
    assert_whole(slow, session, seen)


def test_a_killed_gateway_loses_nothing(slow: TestFleet) -> None:
    session = slow.session()
    slow.http.post(f"/v1/sessions/{session}/messages", json={"id": "m-1", "text": QUESTION})
    slow.process("ray::ServeReplica:flotilla:gateway").kill()
    reply = ask_until_up(slow, session)
    assert "95 dollars" in reply["data"]["text"]
    assert [event["seq"] for event in slow.events(session)] == [1, 2, 3, 4]


def assert_whole(fleet: TestFleet, session: str, seen: list[dict]) -> None:
    """One of each event, in order; the deltas are the text; the record is what the client saw."""
    durable = [event for event in seen if event["type"] not in ("reply.delta", "reply.rewound")]
    assert [event["seq"] for event in durable] == [1, 2, 3, 4]
    assert join(seen) == durable[-1]["data"]["text"]
    assert not any(event["type"] == "reply.rewound" for event in seen)
    assert fleet.events(session) == durable


def ask_until_up(fleet: TestFleet, session: str) -> dict:
    """The same message again and again, as a client would after a broken connection."""
    import time

    import httpx2

    until = time.monotonic() + 60
    while True:
        try:
            return fleet.ask(session, QUESTION, "m-1")
        except httpx2.HTTPError:
            assert time.monotonic() < until, fleet.logs()
        time.sleep(0.2)
