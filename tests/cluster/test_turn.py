"""A turn from end to end, over every door."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from tests.fleet import QUESTION, TestFleet, join, receive


def test_a_reply_cites_its_passage_word_for_word(fleet: TestFleet) -> None:
    reply = fleet.ask(fleet.session(), QUESTION)["data"]
    assert "95 dollars" in reply["text"]
    (citation,) = reply["citations"]
    assert citation["document"] == "gold"
    gold = fleet.http.post("/v1/knowledge/bank/search", json={"query": QUESTION}).json()["hits"]
    (text,) = [hit["passage"]["text"] for hit in gold if hit["passage"]["id"] == citation["passage"]]
    assert citation["quote"] in text
    assert reply["text"][citation["start"] : citation["end"]].casefold() == citation["quote"].casefold()


def test_timing_adds_up(fleet: TestFleet) -> None:
    timing = fleet.ask(fleet.session(), QUESTION)["data"]["timing"]
    engine = timing["first_token"] + timing["generation"]
    assert abs(timing["total"] - timing["retrieval"] - engine - timing["overhead"]) < 0.1
    parts = ("queued", "retrieval", "prompt", "first_token", "generation")
    assert sum(timing[part] for part in parts) <= timing["total"] + 0.1


def test_events_count_from_one_without_gaps(fleet: TestFleet) -> None:
    session = fleet.session()
    fleet.ask(session, QUESTION)
    events = fleet.events(session)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events] == [
        "session.opened",
        "message.accepted",
        "reply.started",
        "reply.completed",
    ]
    assert fleet.events(session, after=3) == events[3:]


def test_the_same_message_again_starts_nothing(fleet: TestFleet) -> None:
    session = fleet.session()
    first, again = fleet.ask(session, QUESTION, "m-1"), fleet.ask(session, QUESTION, "m-1")
    assert first == again
    assert len(fleet.events(session)) == 4
    other = fleet.http.post(f"/v1/sessions/{session}/messages", json={"id": "m-1", "text": "Another text"})
    assert other.status_code == 409


def test_a_plain_curl_is_understood(fleet: TestFleet) -> None:
    """`curl -d` says that it sends a form; the command that `make up` prints relies on it."""
    curl = [
        "curl",
        "-s",
        f"{fleet.url}/v1/sessions",
        "-H",
        "Authorization: Bearer dev",
        "-d",
        '{"agent": "bank"}',
    ]
    session = json.loads(subprocess.run(curl, capture_output=True, check=True).stdout)
    assert session["agent"] == "bank" and session["state"] == "open"


def test_sse_streams_the_turn(fleet: TestFleet) -> None:
    session = fleet.session()
    with fleet.http.stream(
        "POST",
        f"/v1/sessions/{session}/messages",
        json={"id": "m-1", "text": QUESTION},
        headers={"Accept": "text/event-stream"},
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    ids = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert ids[0] == "2" and ids[2] == "3:3" and ids[-1] == "4"
    assert join(events) == events[-1]["data"]["text"]


def test_a_socket_that_comes_back_mid_reply_misses_nothing(fleet: TestFleet) -> None:
    session = fleet.session()
    with fleet.socket(session) as socket:
        socket.send(json.dumps({"type": "message", "id": "m-1", "text": QUESTION}))
        seen = list(receive(socket, until="reply.delta"))
    last = max(event["seq"] for event in seen)
    with fleet.socket(session, after=str(last)) as socket:
        rest = list(receive(socket, until="reply.completed"))
    assert join(seen + rest) == rest[-1]["data"]["text"]
    durable = [e["seq"] for e in seen + rest if e["type"] != "reply.delta"]
    assert durable == list(range(1, 5))


def test_a_socket_that_is_closed_leaves_nobody_behind(fleet: TestFleet) -> None:
    session = fleet.session()
    with fleet.socket(session) as socket:
        list(receive(socket, until="session.opened"))
        assert followers(fleet, session) == 1
    until = time.monotonic() + 10
    while followers(fleet, session):
        assert time.monotonic() < until, "its actor would stay awake for ever"


def followers(fleet: TestFleet, session: str) -> int:
    listed = fleet.http.get("/v1/actors", params={"kind": "session", "limit": 500}).json()["actors"]
    return next(one["followers"] for one in listed if one["actor"] == f"session/{session}")


def test_the_last_event_id_goes_on_right_behind_it(fleet: TestFleet) -> None:
    session = fleet.session()
    fleet.http.post(f"/v1/sessions/{session}/messages", json={"id": "m-1", "text": QUESTION})
    seen: list[dict[str, Any]] = []
    place = ""
    with fleet.http.stream("GET", f"/v1/sessions/{session}/stream") as answer:
        for line in answer.iter_lines():
            if line.startswith("id: "):
                place = line.removeprefix("id: ")
            elif line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: ")))
                if sum(event["type"] == "reply.delta" for event in seen) == 2:
                    break
    assert place == f"3:{len(join(seen))}"
    rest: list[dict[str, Any]] = []
    headers = {"Last-Event-ID": place}
    with fleet.http.stream("GET", f"/v1/sessions/{session}/stream", headers=headers) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                rest.append(json.loads(line.removeprefix("data: ")))
                if rest[-1]["type"] == "reply.completed":
                    break
    # Neither a gap nor an overlap, in the events and in the text.
    assert [event["seq"] for event in seen + rest if event["type"] != "reply.delta"] == [1, 2, 3, 4]
    deltas = [event["data"] for event in seen + rest if event["type"] == "reply.delta"]
    assert "".join(delta["text"] for delta in deltas) == rest[-1]["data"]["text"]
    assert all(d["offset"] == sum(len(e["text"]) for e in deltas[:n]) for n, d in enumerate(deltas))


def test_interrupt_stops_the_reply_and_keeps_what_was_said(fleet: TestFleet) -> None:
    session = fleet.session()
    with fleet.socket(session) as socket:
        socket.send(json.dumps({"type": "message", "id": "m-1", "text": QUESTION}))
        seen = list(receive(socket, until="reply.delta"))
        socket.send(json.dumps({"type": "interrupt"}))
        seen += receive(socket, until="reply.interrupted")
    assert join(seen) == seen[-1]["data"]["text"] != ""
    assert fleet.ask(session, QUESTION)["data"]["text"].endswith(".")


def test_what_nothing_supports_is_not_claimed(fleet: TestFleet) -> None:
    reply = fleet.ask(fleet.session(), "Who won the football world cup in 1974?")["data"]
    assert reply["text"].startswith("I don't know")
    assert reply["offers_person"] and not reply["citations"] and reply["model"] == ""


def test_an_edit_is_answerable_and_deleted_text_is_gone_at_once(fleet: TestFleet) -> None:
    edited = [{"id": "lounge", "title": "Lounges", "text": "The Zebra Lounge in Geneva opens at seven."}]
    fleet.know("edits", edited)
    search = {"query": "When does the Zebra Lounge open?"}
    first = fleet.http.post("/v1/knowledge/edits/search", json=search).json()["hits"]
    assert "opens at seven" in first[0]["passage"]["text"]
    edited[0]["text"] = "The Zebra Lounge in Geneva opens at nine."
    fleet.know("edits", edited)
    second = fleet.http.post("/v1/knowledge/edits/search", json=search).json()["hits"]
    assert "opens at nine" in second[0]["passage"]["text"]
    assert not any("seven" in hit["passage"]["text"] for hit in second)
    assert fleet.http.delete("/v1/knowledge/edits/documents/lounge").status_code == 204
    assert fleet.http.post("/v1/knowledge/edits/search", json=search).json()["hits"] == []
    assert fleet.http.delete("/v1/knowledge/edits/documents/lounge").status_code == 404
