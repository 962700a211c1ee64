"""What an operator sees of a real fleet, over HTTP and at the command line."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flotilla.cli.processes import named
from tests.fleet import QUESTION, TestFleet, receive

TRACE = "0af7651916cd43dd8448eb211c80319c"
DOCS = Path(__file__).parents[2] / "docs" / "operating.md"


def shown(fleet: TestFleet, *words: str) -> str:
    return fleet.flotilla("actors", *words).stdout


def test_a_session_is_seen_awake_put_to_sleep_and_woken(fleet: TestFleet) -> None:
    session = fleet.session()
    fleet.ask(session, QUESTION)
    path = f"/v1/actors/session/{session}"
    listed = fleet.http.get("/v1/actors", params={"kind": "session", "limit": 500}).json()
    (mine,) = [one for one in listed["actors"] if one["actor"] == f"session/{session}"]
    assert mine["host"].startswith("host-") and mine["seq"] == 4 and listed["notes"] == []

    seen = fleet.http.get(path).json()
    assert seen["awake"]["state"]["id"][2] == session and seen["awake"]["mailbox"] == []
    assert [fact["type"] for fact in seen["last"]] == [
        "session.opened",
        "message.accepted",
        "reply.started",
        "reply.completed",
    ]
    assert fleet.http.post(f"{path}/passivate").json()["hosts"] == [mine["host"]]
    asleep = fleet.http.get(path).json()
    assert asleep["awake"] is None and asleep["seq"] == 4 and asleep["home"] == mine["host"]
    assert fleet.http.get(f"/v1/sessions/{session}").json()["seq"] == 4
    assert fleet.http.get(path).json()["awake"]["listed"]["seq"] == 4


def test_a_journal_is_read_with_and_without_what_was_said(fleet: TestFleet) -> None:
    session = fleet.session()
    fleet.ask(session, QUESTION)
    path = f"/v1/actors/session/{session}/journal"
    plain = fleet.http.get(path, params={"after": 1, "limit": 1}).json()["facts"]
    assert [(fact["seq"], fact["type"]) for fact in plain] == [(2, "message.accepted")]
    assert QUESTION not in fleet.http.get(path).text
    with_bodies = fleet.http.get(path, params={"after": 1, "bodies": True}).json()["facts"]
    assert with_bodies[0]["body"]["text"] == QUESTION
    assert QUESTION not in shown(fleet, "journal", f"session/{session}")
    assert "reply.completed" in shown(fleet, "journal", f"session/{session}", "--after", "3")


def test_the_command_line_shows_and_moves(fleet: TestFleet) -> None:
    session = fleet.session()
    name = f"session/{session}"
    assert name in shown(fleet, "list", "--kind", "session", "--limit", "500")
    said = shown(fleet, "show", name)
    assert f"{name} is awake at host-" in said and "session.opened" in said
    assert "host-0" in shown(fleet, "hosts") and "up" in shown(fleet, "hosts")
    assert "pinned to host-0" in shown(fleet, "move", name, "host-0")
    assert "It is pinned to host-0." in shown(fleet, "show", name)
    assert "was pinned to host-0" in shown(fleet, "unpin", name)
    assert "has let go of" in shown(fleet, "passivate", name)
    assert f"{name} sleeps" in shown(fleet, "show", name)
    assert shown(fleet, "letters") == "There are no dead letters.\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("show", "session/nobody"), "There is no session/nobody."),
        (("show", "nobody"), "Name it as"),
        (("journal", "session/nobody"), "Nothing is recorded"),
        (("move", "session/x", "nowhere"), "Up: host-0"),
        (("replay", "x_nothing"), "There is no letter"),
        (("discard", "x_nothing"), "flotilla actors letters"),
        (("drain", "nowhere"), "No host 'nowhere' is up"),
    ],
)
def test_a_command_that_cannot_be_done_says_what_to_do(
    fleet: TestFleet, words: tuple[str, ...], says: str
) -> None:
    done = fleet.flotilla("actors", *words, check=False)
    assert done.returncode == 1 and says in done.stderr


def test_a_visitor_sees_nothing_of_it(fleet: TestFleet) -> None:
    token = fleet.http.post("/v1/web/visits", json={"agent": "bank"}).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    for method, path in (
        ("GET", "/v1/actors"),
        ("GET", "/v1/letters"),
        ("GET", "/v1/hosts"),
        ("POST", "/v1/hosts/host-0/drain"),
    ):
        answer = fleet.http.request(method, path, headers=headers)
        assert answer.status_code == 403, path
        assert answer.json()["type"].endswith("/forbidden")


def metrics(fleet: TestFleet) -> dict[str, Any]:
    text = fleet.http.get("/metrics").text
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(families: dict[str, Any], family: str, sample: str, **labels: str) -> float:
    return sum(
        s.value for s in families[family].samples if s.name == sample and labels.items() <= s.labels.items()
    )


def test_metrics_count_what_the_hosts_do(fleet: TestFleet) -> None:
    before = metrics(fleet)
    fleet.ask(fleet.session(), QUESTION)
    after = metrics(fleet)
    of = {"host": "host-0", "kind": "session"}
    gained = {
        name: value(after, f"flotilla_actor_{name}", f"flotilla_actor_{name}_total", **of)
        - value(before, f"flotilla_actor_{name}", f"flotilla_actor_{name}_total", **of)
        for name in ("facts", "activations", "crashes")
    }
    assert gained["facts"] >= 4 and gained["activations"] >= 1 and gained["crashes"] == 0
    assert value(after, "flotilla_host_up", "flotilla_host_up", host="host-0") == 1
    turns = "flotilla_actor_turn_seconds"
    assert value(after, turns, f"{turns}_count", **of) > value(before, turns, f"{turns}_count", **of)
    assert value(after, turns, f"{turns}_bucket", le="+Inf", **of) == value(
        after, turns, f"{turns}_count", **of
    )


def test_every_metric_is_in_the_documents(fleet: TestFleet) -> None:
    fleet.ask(fleet.session(), QUESTION)
    documented = set(re.findall(r"`((?:flotilla_|vllm:|gen_ai_)\w+)`", DOCS.read_text()))
    ours = {family for family in metrics(fleet) if family.startswith(("flotilla_", "vllm:", "gen_ai_"))}
    assert ours <= {name.removesuffix("_total") for name in documented}


def test_metrics_count_what_the_models_do(fleet: TestFleet) -> None:
    before = metrics(fleet)
    version = fleet.ask(fleet.session(), QUESTION)["data"]["model"]
    usage, first = "gen_ai_client_token_usage", "gen_ai_server_time_to_first_token_seconds"
    up = [s.labels for s in before["flotilla_replica_up"].samples if s.labels["model_name"] == version]
    (replica,) = {labels["engine"] for labels in up}
    of = {"model_name": version, "engine": replica}
    counted = (
        ("vllm:prompt_tokens", "_total"),
        ("vllm:generation_tokens", "_total"),
        ("vllm:time_to_first_token_seconds", "_count"),
        ("vllm:time_to_first_token_seconds", "_sum"),
    )
    after = metrics(fleet)
    gained = {
        name + end: value(after, name, name + end, **of) - value(before, name, name + end, **of)
        for name, end in counted
    }
    assert all(more > 0 for more in gained.values()), gained
    assert value(after, "flotilla_replica_up", "flotilla_replica_up", **of) == 1
    assert value(after, "vllm:num_requests_running", "vllm:num_requests_running", **of) == 0
    assert value(after, "flotilla_charges_dropped", "flotilla_charges_dropped_total", host="host-0") == 0

    by_version = {"gen_ai_response_model": version}
    wanted = value(before, first, f"{first}_count", **by_version) + 1 if first in before else 1
    deadline = time.monotonic() + 10  # the tallies are hung up twice a second
    while value(after, first, f"{first}_count", **by_version) < wanted and time.monotonic() < deadline:
        after = metrics(fleet)
    assert value(after, first, f"{first}_count", **by_version) >= wanted
    made = value(after, usage, f"{usage}_sum", **by_version, gen_ai_token_type="output")
    assert 0 < made <= value(after, "vllm:generation_tokens", "vllm:generation_tokens_total", **of)


def test_a_turn_is_traced_from_the_gateway_to_the_reply(fleet: TestFleet) -> None:
    session = fleet.session()
    answer = fleet.http.post(
        f"/v1/sessions/{session}/messages?wait=true",
        json={"id": "m-1", "text": QUESTION},
        headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
    )
    assert answer.status_code == 200
    tree = fleet.flotilla("trace", TRACE).stdout
    for name in ("POST message", "Post", "record", "work Retrieve", "work Generate"):
        assert name in tree
    assert tree.count("record") >= 3 and QUESTION not in tree
    assert tree == fleet.flotilla("trace", session).stdout
    files = list(fleet.local.logs.glob("traces-*.jsonl"))
    spans = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    of_trace = [span for span in spans if span["trace"] == TRACE]
    ids = {span["id"] for span in of_trace}
    assert [s["name"] for s in of_trace if s.get("parent") not in ids] == ["POST message"]
    assert not any(QUESTION in json.dumps(span) for span in spans)
    (made,) = (span["about"] for span in of_trace if span["name"] == "work Generate")
    assert made["gen_ai.operation.name"] == "chat"
    assert made["gen_ai.request.model"] == made["gen_ai.response.model"] != ""
    assert made["gen_ai.usage.input_tokens"] > 0 and made["gen_ai.usage.output_tokens"] > 0
    assert 0 <= made["gen_ai.server.time_to_first_token"] <= made["gen_ai.server.request.duration"]


def test_an_unknown_trace_is_said_to_be_unknown(fleet: TestFleet) -> None:
    done = fleet.flotilla("trace", "s_nobody", check=False)
    assert done.returncode == 1 and "FLOTILLA_TRACE_SHARE" in done.stderr


def test_a_visitor_cannot_have_the_fleet_trace(fleet: TestFleet) -> None:
    visit = fleet.http.post("/v1/web/visits", json={"agent": "bank"}).json()
    trace = "1" * 32
    fleet.http.post(
        f"/v1/sessions/{visit['session']}/messages?wait=true",
        json={"id": "m-1", "text": QUESTION},
        headers={"Authorization": f"Bearer {visit['token']}", "traceparent": f"00-{trace}-{'2' * 16}-01"},
    ).raise_for_status()
    assert fleet.flotilla("trace", trace, check=False).returncode == 1


def test_a_process_of_the_fleet_is_watched_by_its_name(fleet: TestFleet, tmp_path: Path) -> None:
    running = named(fleet.local)
    assert {"host-0", "gateway", "librarian-0", "controller-0", "valkey", "postgres", "raylet"} <= set(
        running
    )
    assert running["host-0"] == fleet.process("ray::Host")
    graph = tmp_path / "host.svg"
    with fleet.socket(fleet.session()) as socket:  # so that it has something to do
        socket.send(json.dumps({"type": "message", "id": "m-1", "text": QUESTION}))
        done = fleet.flotilla("profile", "host-0", "--seconds", "1", "--out", str(graph))
        list(receive(socket, "reply.completed"))
    assert f"Wrote {graph}" in done.stdout and "<svg" in graph.read_text()
    assert "own" in fleet.flotilla("profile", "host-0", "--seconds", "1", "--cpu", "--native").stdout
    refused = fleet.flotilla("profile", "host-77", check=False)
    assert refused.returncode == 1 and "host-0" in refused.stderr
