"""A store goes away while the fleet runs: nothing accepted is lost, and everything comes back by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.fleet import QUESTION, TestFleet, join, receive


@pytest.fixture(scope="module")
def slow() -> Iterator[TestFleet]:
    fleet = TestFleet(FLOTILLA_SCRIPTED_TOKEN_S="0.2")
    try:
        fleet.up().know()
        yield fleet
    finally:
        fleet.down()


def kill(pid: int | None) -> None:
    assert pid is not None
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=10)


def eventually(true: Callable[[], bool], timeout_s: float = 30) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


def ready(fleet: TestFleet) -> dict[str, str]:
    return fleet.http.get("/readyz").json()["dependencies"]


def test_without_valkey_replies_are_completed_unseen(slow: TestFleet) -> None:
    session = slow.session()
    with slow.socket(session) as socket:
        socket.send(json.dumps({"type": "message", "id": "m-1", "text": QUESTION}))
        seen = list(receive(socket, until="reply.delta"))
        kill(slow.local.valkey.pid)
        assert ready(slow)["redis"] != "ok"
        seen += receive(socket, until="reply.completed")
        # Valkey was gone, not the record: the next message is taken and answered too.
        socket.send(json.dumps({"type": "message", "id": "m-2", "text": QUESTION}))
        seen += receive(socket, until="reply.completed")
    slow.local.valkey.start()
    completed = [event for event in seen if event["type"] == "reply.completed"]
    assert len(completed) == 2 and all("95 dollars" in event["data"]["text"] for event in completed)
    shown = join([event for event in seen if event["seq"] <= 4])
    assert completed[0]["data"]["text"].startswith(shown)
    eventually(lambda: set(ready(slow).values()) == {"ok"})


def test_without_postgres_nothing_is_accepted_and_nothing_accepted_is_lost(slow: TestFleet) -> None:
    session = slow.session()
    message = {"id": "m-1", "text": QUESTION}
    with slow.socket(session) as socket:
        socket.send(json.dumps({"type": "message", **message}))
        seen = list(receive(socket, until="reply.delta"))
        kill(slow.local.postgres.pid)
        refused = slow.http.post(f"/v1/sessions/{session}/messages", json={"id": "m-2", "text": QUESTION})
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["next"]
        slow.local.postgres.start()
        seen += receive(socket, until="reply.completed")
    durable = [event["seq"] for event in seen if event["type"] != "reply.delta"]
    assert durable == [1, 2, 3, 4]
    assert join(seen) == seen[-1]["data"]["text"]
    assert slow.ask(session, QUESTION, "m-2")["data"]["text"]
