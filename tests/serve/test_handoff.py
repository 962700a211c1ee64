"""Persons and messages over HTTP and WebSocket: who may do what, and what the customer never sees."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect

from tests.serve.conftest import Gateway

QUESTION = "What does the Silver card cost?"
SECRET = "The customer is angry."


def events(stream: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: ")]


def types(found: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in found if event["type"] != "reply.delta"]


def problem(answer: httpx2.Response) -> tuple[int, str | None]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json().get("field")


async def taken(gateway: Gateway) -> str:
    """A session that Ann has, with a note, a message of each side, and that is given back."""
    session = await gateway.session()
    path = f"/v1/sessions/{session}"
    for call, body in (
        ("handoff", {"action": "request", "reason": "Stuck."}),
        ("notes", {"id": "n-1", "text": SECRET, "person": "Ann"}),
        ("handoff", {"action": "accept", "person": "Ann"}),
        ("messages", {"id": "c-1", "text": "Is anybody there?"}),
        ("messages", {"id": "p-1", "text": "Yes, Ann.", "as": "Ann"}),
        ("handoff", {"action": "return", "person": "Ann"}),
    ):
        answer = await gateway.desk.post(f"{path}/{call}", json=body)
        assert answer.status_code in (200, 202), answer.text
    return session


ALL = [
    "session.opened",
    "handoff.requested",
    "note.added",
    "handoff.accepted",
    "message.accepted",
    "message.sent",
    "handoff.returned",
]


async def test_the_desk_sees_all_and_the_customer_all_but_the_notes(gateway: Gateway) -> None:
    session = await taken(gateway)
    path = f"/v1/sessions/{session}/events"
    assert types((await gateway.desk.get(path)).json()["events"]) == ALL
    async with gateway.visitor(session) as visitor:
        seen = (await visitor.get(path)).json()["events"]
        assert [event["seq"] for event in seen] == [1, 2, 4, 5, 6, 7] and SECRET not in json.dumps(seen)
        assert seen[-2]["data"] == {"by": "Ann", "id": "p-1", "text": "Yes, Ann."}


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_a_visitors_pages_are_full_until_the_last_whatever_is_left_out(
    gateway: Gateway, limit: int
) -> None:
    session = await taken(gateway)
    got: list[int] = []
    async with gateway.visitor(session) as visitor:
        while True:
            after = got[-1] if got else 0
            answer = await visitor.get(f"/v1/sessions/{session}/events?after={after}&limit={limit}")
            page = [event["seq"] for event in answer.json()["events"]]
            got += page
            if len(page) < limit:
                break
    assert got == [1, 2, 4, 5, 6, 7]


async def test_streams_leave_notes_out_for_visitors_and_their_ids_go_on(gateway: Gateway) -> None:
    session = await taken(gateway)
    await gateway.desk.post(
        f"/v1/sessions/{session}/messages?wait=true", json={"id": "c-2", "text": QUESTION}
    )
    path = f"/v1/sessions/{session}/stream"
    async with (
        gateway.visitor(session) as visitor,
        visitor.stream("GET", path) as whole,
        visitor.stream("GET", path, headers={"Last-Event-ID": "2"}) as later,
    ):
        await gateway.desk.delete(f"/v1/sessions/{session}")  # from now on its token opens nothing
        seen, rest = [(await answer.aread()).decode() for answer in (whole, later)]
    assert "note.added" not in seen and types(events(seen))[2:4] == ["handoff.accepted", "message.accepted"]
    ids = [line[4:] for line in seen.splitlines() if line.startswith("id: ") and ":" not in line[4:]]
    assert ids[:3] == ["1", "2", "4"] and len(set(ids)) == len(ids)
    assert types(events(rest)) == types(events(seen))[2:]
    assert "note.added" in types(events((await gateway.desk.get(path)).text))


async def test_a_visitors_socket_never_hears_of_a_note(gateway: Gateway) -> None:
    session = await taken(gateway)
    got: dict[str, list[str]] = {}
    for name, key in (("desk", "dev"), ("visitor", gateway.token(session))):
        url = f"ws://{gateway.address}/v1/sessions/{session}/ws?after=0"
        async with connect(url, additional_headers={"Authorization": f"Bearer {key}"}) as ws:
            note = {"id": f"n-{name}", "text": SECRET, "person": "Ann"}
            await gateway.desk.post(f"/v1/sessions/{session}/notes", json=note)
            await ws.send(json.dumps({"type": "message", "id": f"c-{name}", "text": "Hello"}))
            got[name] = []
            while got[name].count("reply.completed") < len(got):
                got[name].append(json.loads(await ws.recv())["type"])
    assert "note.added" in got["desk"] and "note.added" not in got["visitor"]


async def test_a_visitor_may_ask_for_a_person_and_no_more(gateway: Gateway) -> None:
    session = await gateway.session()
    path = f"/v1/sessions/{session}"
    async with gateway.visitor(session) as visitor:
        asked = await visitor.post(f"{path}/handoff", json={"action": "request"})
        assert asked.json()["handoff"] == "requested"
        for call, body in (
            ("handoff", {"action": "accept", "person": "Eve"}),
            ("handoff", {"action": "return", "person": "Eve"}),
            ("messages", {"id": "p-1", "text": "Hi", "as": "Ann"}),
            ("notes", {"id": "n-1", "text": "Hi", "person": "Eve"}),
        ):
            assert problem(await visitor.post(f"{path}/{call}", json=body))[0] == 403


async def test_a_second_person_is_told_who_has_it(gateway: Gateway) -> None:
    session = await gateway.session()
    path = f"/v1/sessions/{session}/handoff"
    for _ in range(2):
        view = (await gateway.desk.post(path, json={"action": "accept", "person": "Ann"})).json()
        assert (view["handoff"], view["person"]) == ("accepted", "Ann")
    answer = await gateway.desk.post(path, json={"action": "accept", "person": "Bob"})
    assert problem(answer) == (409, "person") and "Ann" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("call", "body", "field"),
    [
        ("handoff", {"action": "steal", "person": "Ann"}, "action"),
        ("handoff", {"action": "accept"}, "person"),
        ("handoff", {"action": "return", "person": " "}, "person"),
        ("handoff", {"action": "request", "reason": "\ud800"}, "reason"),
        ("handoff", {"action": "request", "why": "x"}, "why"),
        ("notes", {"id": "n-1", "text": "x"}, "person"),
        ("notes", {"id": "n 1", "text": "x", "person": "Ann"}, "id"),
        ("notes", {"id": "n-1", "text": " ", "person": "Ann"}, "text"),
        ("messages", {"id": "c-1", "text": "x", "while_talking": "shout"}, "while_talking"),
        ("messages", {"id": "c-1", "text": "x", "as": ""}, "as"),
        ("messages", {"id": "c-1", "text": "x", "as": "Ann", "while_talking": "merge"}, "while_talking"),
    ],
)
async def test_what_is_wrong_is_refused_naming_the_field(
    gateway: Gateway, call: str, body: dict[str, Any], field: str
) -> None:
    session = await gateway.session()
    answer = await gateway.desk.post(
        f"/v1/sessions/{session}/{call}",
        content=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    assert problem(answer) == (422, field)


async def test_speaking_without_having_the_session_is_a_conflict(gateway: Gateway) -> None:
    path = f"/v1/sessions/{await gateway.session()}/messages"
    answer = await gateway.desk.post(path, json={"id": "p-1", "text": "Hi", "as": "Ann"})
    assert problem(answer)[0] == 409


@pytest.mark.parametrize("wait", ["", "?wait=true"])
async def test_a_message_that_a_person_answers_has_no_turn_to_wait_for(gateway: Gateway, wait: str) -> None:
    session = await gateway.session()
    await gateway.desk.post(f"/v1/sessions/{session}/handoff", json={"action": "accept", "person": "Ann"})
    path = f"/v1/sessions/{session}/messages{wait}"
    answer = await gateway.desk.post(path, json={"id": "c-1", "text": QUESTION})
    assert (answer.status_code, answer.json()) == (202, {"seq": 3, "turn": None})
    streamed = await gateway.desk.post(
        path, json={"id": "c-2", "text": QUESTION}, headers={"Accept": "text/event-stream"}
    )
    assert types(events(streamed.text)) == ["message.accepted"]


# -- while the agent talks


async def test_a_message_is_refused_merged_or_interrupts_as_it_says(thinking: Gateway) -> None:
    session = await thinking.session()
    path = f"/v1/sessions/{session}/messages"
    first = (await thinking.desk.post(path, json={"id": "c-1", "text": QUESTION})).json()
    body = {"id": "c-2", "text": "And Gold?", "while_talking": "reject"}
    answer = await thinking.desk.post(path, json=body)
    assert problem(answer) == (409, "while_talking") and answer.headers["retry-after"] == "1"
    merged = await thinking.desk.post(path, json=body | {"while_talking": "merge"})
    assert merged.json()["turn"] == first["turn"]
    last = await thinking.desk.post(path, json=body | {"id": "c-3", "while_talking": "interrupt"})
    assert last.json()["turn"] != first["turn"]
    found = (await thinking.desk.get(f"/v1/sessions/{session}/events")).json()["events"]
    ends = [event["turn"] for event in found if event["type"] == "reply.interrupted"]
    assert ends == [first["turn"]] and types(found).count("message.accepted") == 3


async def test_a_socket_carries_the_way_of_a_message_and_names_it_when_it_is_wrong(thinking: Gateway) -> None:
    session = await thinking.session()
    url = f"ws://{thinking.address}/v1/sessions/{session}/ws"
    async with connect(url, additional_headers={"Authorization": "Bearer dev"}) as ws:
        for way in ("shout", "queue", "reject"):
            frame = {"type": "message", "id": f"c-{way}", "text": QUESTION, "while_talking": way}
            await ws.send(json.dumps(frame))
        errors = []
        while len(errors) < 2:
            event = json.loads(await ws.recv())
            errors += [event] if event["type"] == "error" else []
    assert [error["problem"]["field"] for error in errors] == ["while_talking", "while_talking"]
    assert [error["problem"]["status"] for error in errors] == [422, 409] and errors[1]["id"] == "c-reject"
