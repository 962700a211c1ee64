"""Processes and stores die under twenty customers who talk, and nothing that was acknowledged is lost.

One fleet for all cases: three hosts on two Ray nodes, real PostgreSQL and Valkey. The checker of the simulator
judges what the customers have noted.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Iterator

import pytest

from benchmarks.crowd import DOCUMENTS, talking
from benchmarks.faults import FAULTS, GATEWAY, busiest, family, process_of
from benchmarks.nodes import TwoNodes
from flotilla.client import AsyncClient, Completed, Delta, Event, Rewound
from flotilla.client.rpc import RpcClient
from simulation.observations import Fault, Received
from tests.fleet import QUESTION, join, receive

CUSTOMERS = 20
SEED = 11
CASES = [
    ["host killed"],
    ["gateway killed"],
    ["model killed", "librarian killed", "controller killed"],
    ["Valkey killed"],
    ["Valkey stopped"],
    ["PostgreSQL killed"],
    ["raylet killed"],
    ["GCS stopped"],
]
# Until the directory has forgotten a host that is stopped, and everybody has looked.
TAKEN_OVER_S = 4.5
TURN = ["session.opened", "message.accepted", "reply.started", "reply.completed"]


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    """Replies of two seconds."""
    nodes = TwoNodes(FLOTILLA_SCRIPTED_TOKEN_S="0.04")
    try:
        nodes.up().know("bank", DOCUMENTS)
        yield nodes
    finally:
        nodes.down()


@pytest.mark.parametrize("faults", CASES, ids=" and ".join)
async def test_nothing_acknowledged_is_lost_doubled_or_reordered(nodes: TwoNodes, faults: list[str]) -> None:
    async with talking(nodes, CUSTOMERS, SEED) as crowd:
        await asyncio.gather(*(FAULTS[fault](nodes, crowd, False) for fault in faults))
        await crowd.until_replies(CUSTOMERS // 2)


async def test_a_host_that_was_taken_for_dead_shows_and_records_nothing(nodes: TwoNodes) -> None:
    async with talking(nodes, CUSTOMERS, SEED) as crowd:
        host = await asyncio.to_thread(busiest, nodes)
        mine = await asyncio.to_thread(awake_at, nodes, host["name"])
        await FAULTS["host stopped"](nodes, crowd, False)
        await crowd.until_replies(CUSTOMERS)
    stopped, woken = [o.at for o in crowd.log.observations if isinstance(o, Fault)]
    received = [o for o in crowd.log.observations if isinstance(o, Received)]
    went_on = {o.session for o in received if stopped + TAKEN_OVER_S < o.at < woken}
    assert mine and mine <= went_on, "others had taken its conversations over"
    assert "activation.lost" in said(nodes, process_of(nodes, host).pid), "it tried to write"
    assert not [o for o in received if o.type == "reply.rewound" and o.at > woken]


def awake_at(nodes: TwoNodes, host: str) -> set[str]:
    """The sessions that somebody follows there."""
    listed = nodes.http.get("/v1/actors", params={"kind": "session", "limit": 500}).json()["actors"]
    return {a["actor"].removeprefix("session/") for a in listed if a["host"] == host and a["followers"]}


def said(nodes: TwoNodes, pid: int) -> str:
    """The log of a process that Ray started."""
    logs = nodes.local.sockets / "ray" / "session_latest" / "logs"
    return "".join(path.read_text() for path in logs.glob(f"worker-*-{pid}.*"))


# -- one conversation, looked at closely


@pytest.mark.parametrize("victim", ["ray::Host", "ray::Model"])
def test_a_killed_process_costs_no_word(nodes: TwoNodes, victim: str) -> None:
    session = nodes.session()
    with nodes.socket(session) as socket:
        socket.send(json.dumps({"type": "message", "id": "m-1", "text": QUESTION}))
        seen = list(receive(socket, until="reply.delta"))
        for process in nodes.local.processes():
            if process.name() == victim:
                process.kill()
        seen += receive(socket, until="reply.completed")
    assert_whole(nodes, session, seen)


def test_a_reply_is_finished_though_nobody_watches(nodes: TwoNodes) -> None:
    session = nodes.session()
    with nodes.socket(session) as socket:
        socket.send(json.dumps({"type": "message", "id": "m-1", "text": QUESTION}))
        seen = list(receive(socket, until="reply.delta"))
    process_of(nodes, busiest(nodes)).kill()
    with nodes.socket(session, after=str(max(event["seq"] for event in seen))) as socket:
        seen += receive(socket, until="reply.completed")
    assert_whole(nodes, session, seen)


def assert_whole(nodes: TwoNodes, session: str, seen: list[dict]) -> None:
    """One of each event, in order; the deltas are the text; the record is what the client saw."""
    durable = [event for event in seen if event["type"] not in ("reply.delta", "reply.rewound")]
    assert [event["seq"] for event in durable] == list(range(1, len(durable) + 1))
    assert list(dict.fromkeys(event["type"] for event in durable)) == TURN
    assert len(durable) <= len(TURN) + 1, (
        "a start is told again where another version begins, or it was not known"
    )
    assert join(seen) == durable[-1]["data"]["text"]
    assert not any(event["type"] == "reply.rewound" for event in seen)
    assert nodes.events(session) == durable


async def test_a_talking_client_notices_nothing_over_any_door(nodes: TwoNodes) -> None:
    """The gateway and the hosts are killed while they answer over SSE, WebSocket and gRPC."""
    killing = Killing(nodes, talking=3)
    async with AsyncClient(nodes.url) as http, RpcClient(nodes.grpc) as rpc:
        one, other = await http.sessions.open("bank"), await http.sessions.open("bank")
        third = await rpc.sessions.open("bank")
        async with other.connect() as talk:
            seen = await asyncio.gather(
                killing.watch(one.send(QUESTION)),
                killing.watch(talk.send(QUESTION)),
                killing.watch(third.send(QUESTION)),
            )
        records = [await session.events() for session in (one, other, http.sessions.at(third.id))]
    assert killing.done
    for events, record in zip(seen, records, strict=True):
        end = record[-1]
        assert [event.seq for event in record] == list(range(1, len(record) + 1)) and isinstance(
            end, Completed
        )
        assert len(record) in (len(TURN), len(TURN) + 1)
        assert [event for event in events if event in record] == record[1:], "each once, in order"
        assert not any(isinstance(event, Rewound) for event in events)
        assert "".join(event.text for event in events if isinstance(event, Delta)) == end.said.text


class Killing:
    """Kills the gateway and the hosts as soon as all who talk have heard a word."""

    def __init__(self, nodes: TwoNodes, talking: int) -> None:
        self._nodes = nodes
        self._silent = talking
        self.done = False

    async def watch(self, events: AsyncGenerator[Event]) -> list[Event]:
        seen = list[Event]()
        async for event in events:
            if isinstance(event, Delta) and not any(isinstance(one, Delta) for one in seen):
                self._silent -= 1
            seen.append(event)
            if not self._silent and not self.done:
                self.done = True
                for process in self._nodes.local.processes():
                    if process.name().startswith(("ray::Host", GATEWAY)):
                        process.kill()
        return seen


# -- a store that says nothing


def stop(pid: int | None, how: signal.Signals) -> None:
    assert pid is not None
    for process in family(pid):
        process.send_signal(how)


def ready(nodes: TwoNodes) -> dict[str, str]:
    return nodes.http.get("/readyz").json()["dependencies"]


def test_without_valkey_replies_are_completed_unseen(nodes: TwoNodes) -> None:
    session, valkey = nodes.session(), nodes.local.valkey.pid
    with nodes.socket(session) as socket:
        socket.send(json.dumps({"type": "message", "id": "m-1", "text": QUESTION}))
        seen = list(receive(socket, until="reply.delta"))
        stop(valkey, signal.SIGSTOP)
        try:
            assert ready(nodes)["redis"] != "ok"
            seen += receive(socket, until="reply.completed")
        finally:
            stop(valkey, signal.SIGCONT)
    assert "95 dollars" in seen[-1]["data"]["text"]
    assert seen[-1]["data"]["text"].startswith(join(seen))


def test_without_postgres_nothing_is_accepted_and_nothing_accepted_is_lost(nodes: TwoNodes) -> None:
    session, postgres = nodes.session(), nodes.local.postgres.pid
    with nodes.socket(session) as socket:
        socket.send(json.dumps({"type": "message", "id": "m-1", "text": QUESTION}))
        seen = list(receive(socket, until="reply.delta"))
        stop(postgres, signal.SIGSTOP)
        try:
            path = f"/v1/sessions/{session}/messages"
            refused = nodes.http.post(path, json={"id": "m-2", "text": QUESTION})
        finally:
            stop(postgres, signal.SIGCONT)
        assert refused.status_code in (503, 504) and refused.json()["next"]
        seen += receive(socket, until="reply.completed")
    assert seen[-1]["data"]["text"].startswith(join(seen))
    assert nodes.ask(session, QUESTION, "m-2")["data"]["text"]
    events = nodes.events(session)
    assert [event["seq"] for event in events] == list(range(1, 8))
    assert [e["data"]["id"] for e in events if e["type"] == "message.accepted"] == ["m-1", "m-2"]
