"""A real fleet with two gateways: keys that are made, used, rotated, revoked; limits of both; and gateways that go."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.fleet import TestFleet

BOUND_S = 1.0
SECRETS: list[str] = []


@pytest.fixture(scope="module")
def pair() -> Iterator[TestFleet]:
    """Two gateways, a limit that can be reached, and tokens that are renewed within the test."""
    fleet = TestFleet(
        FLOTILLA_GATEWAYS="2", FLOTILLA_LIMIT_KEY_SESSIONS_PER_MIN="40", FLOTILLA_SCRIPTED_TOKEN_S="0.01"
    )
    try:
        yield fleet.up()
    finally:
        fleet.down()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def status(fleet: TestFleet, key: str, path: str = "/v1/sessions") -> int:
    """On a connection of its own, so that either gateway may answer."""
    with httpx2.Client(base_url=fleet.url, headers=bearer(key), timeout=10) as client:
        return client.get(path).status_code


def create(fleet: TestFleet, *words: str) -> dict[str, Any]:
    """At the command line; the key and its record."""
    key = fleet.flotilla("keys", "create", "a test", *words).stdout.splitlines()[0]
    SECRETS.append(key)
    newest = fleet.http.get("/v1/keys", params={"limit": 1}).json()["keys"][0]
    return newest | {"key": key}


def opened(fleet: TestFleet, session: str, credential: str) -> ClientConnection:
    url = f"{fleet.url.replace('http', 'ws', 1)}/v1/sessions/{session}/ws"
    socket = connect(url, additional_headers=bearer(credential), legacy=True)
    json.loads(socket.recv(timeout=20))  # session.opened: it is let in
    return socket


def watch(socket: ClientConnection, found: list[tuple[int, float]]) -> None:
    """Adds the code that it was closed with, and when."""
    try:
        while True:
            socket.recv(timeout=10)
    except ConnectionClosed as error:
        assert error.rcvd is not None
        found.append((error.rcvd.code, time.monotonic()))


def test_a_key_is_made_used_and_revoked_everywhere_within_the_bound(pair: TestFleet) -> None:
    made = create(pair, "--scope", "conversations:read", "--scope", "conversations:write")
    with httpx2.Client(base_url=pair.url, headers=bearer(made["key"]), timeout=20) as mine:
        visit = mine.post("/v1/sessions", json={"agent": "bank"}).json()
    path = f"/v1/sessions/{visit['id']}"
    SECRETS.append(visit["token"])
    assert {status(pair, made["key"]) for _ in range(8)} == {200}
    assert status(pair, made["key"], "/v1/usage") == 403
    sockets = [opened(pair, visit["id"], who) for who in [made["key"], visit["token"]] * 3]
    found: list[tuple[int, float]] = []
    waiting = [threading.Thread(target=watch, args=(one, found)) for one in sockets]
    for thread in waiting:
        thread.start()
    revoked = pair.http.delete(f"/v1/keys/{made['id']}")
    answered = time.monotonic()
    assert revoked.json()["state"] == "revoked" and "note" not in revoked.json()
    while {status(pair, made["key"]) for _ in range(8)} != {401}:
        assert time.monotonic() - answered < BOUND_S
    for thread in waiting:
        thread.join()
    assert [code for code, _ in found] == [4401] * len(sockets)
    assert max(at for _, at in found) - answered < BOUND_S, found
    assert {status(pair, visit["token"], path) for _ in range(4)} == {401}


def test_a_rotated_key_works_with_both_secrets_and_then_with_the_new_one(pair: TestFleet) -> None:
    made = create(pair, "--scope", "conversations:read")
    latter = pair.flotilla("keys", "rotate", made["id"]).stdout.splitlines()[0]
    SECRETS.append(latter)
    assert {status(pair, key) for key in (made["key"], latter) for _ in range(4)} == {200}
    pair.flotilla("keys", "rotate", made["id"], "--grace", "0s")
    until = time.monotonic() + BOUND_S
    while {status(pair, made["key"]) for _ in range(8)} != {401}:
        assert time.monotonic() < until
    listed = pair.flotilla("keys", "list").stdout
    assert made["id"] in listed and made["key"] not in listed


def test_a_limit_is_one_over_both_gateways_and_answers_tell_of_it(pair: TestFleet) -> None:
    made = create(pair, "--scope", "conversations:write", "--limit", "sessions_per_min=30")
    answers: list[httpx2.Response] = []
    for _ in range(40):
        with httpx2.Client(base_url=pair.url, headers=bearer(made["key"]), timeout=20) as client:
            answers.append(client.post("/v1/sessions", json={"agent": "bank"}))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {201, 429}
    assert 27 <= len(answers) - len(refused) <= 30 + 30  # a token comes back every two seconds
    assert refused[0].json()["field"] == "limits.sessions" and refused[0].headers["retry-after"]
    assert answers[0].headers["ratelimit-policy"].startswith('"sessions";q=30;w=60, "sessions"')


def test_each_answer_has_one_request_id(pair: TestFleet) -> None:
    for path in ("/v1/sessions", "/v1/nothing", "/openai/v1/models", "/healthz"):
        for given in (None, "mine-1"):
            answer = pair.http.get(path, headers={"X-Request-Id": given} if given else {})
            (id,) = set(answer.headers.get_list("x-request-id"))
            assert len(answer.headers.get_list("x-request-id")) == 1, (path, answer.headers)
            assert id and (given is None or id == given)


def test_no_secret_is_in_any_log_of_the_fleet(pair: TestFleet) -> None:
    """After all that the tests above have done."""
    logs = [
        path
        for path in pair.home.rglob("*")
        if path.is_file() and path.suffix in (".log", ".jsonl", ".err", ".out")
    ]
    assert logs and SECRETS
    for path in logs:
        text = path.read_text(errors="replace")
        for secret in SECRETS:
            assert secret[40:] not in text, path


# -- gateways that go


class Reader:
    """Reads a session's stream for as long as it lasts, and comes back to where it was."""

    def __init__(self, fleet: TestFleet, session: str) -> None:
        self._fleet, self._session = fleet, session
        self.text = ""
        self.torn: list[tuple[str, str]] = []
        self.completed: list[str] = []
        self.connections = 0
        self.stopped = False
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        place = "0"
        while not self.stopped:
            self.connections += 1
            headers = bearer("dev") | {"Last-Event-ID": place}
            with httpx2.Client(base_url=self._fleet.url, headers=headers, timeout=20) as client:
                try:
                    with client.stream("GET", f"/v1/sessions/{self._session}/stream") as answer:
                        place = self._read(answer, place)
                except httpx2.TransportError:
                    time.sleep(0.2)

    def _read(self, answer: httpx2.Response, place: str) -> str:
        for line in answer.iter_lines():
            if line.startswith("id: "):
                place = line[4:]
            elif line.startswith("data: "):
                self._take(json.loads(line[6:]))
            if self.stopped:
                break
        return place

    def _take(self, event: dict[str, Any]) -> None:
        """The deltas of a reply join to it: no gap, nothing doubled. Of one that was over before the reader came
        back the record alone is told."""
        data = event["data"]
        if event["type"] == "reply.delta":
            if data["offset"] != len(self.text):
                self.torn.append((self.text, data["text"]))
            self.text += data["text"]
        elif event["type"] == "reply.completed":
            if self.text not in ("", data["text"]):
                self.torn.append((self.text, data["text"]))
            self.completed.append(data["text"])
            self.text = ""


def test_gateways_are_rolled_and_nobody_misses_a_word(pair: TestFleet) -> None:
    session = pair.session("chat")
    codes: list[tuple[int, float]] = []
    sockets = [opened(pair, session, "dev") for _ in range(6)]
    watching = [threading.Thread(target=watch, args=(one, codes)) for one in sockets]
    reader = Reader(pair, session)
    rolling = threading.Thread(target=pair.flotilla, args=("roll", "gateways"))
    before = pair.process("ServeReplica:flotilla:gateway").pid
    for thread in (*watching, rolling):
        thread.start()
    asked = 0
    while rolling.is_alive() or asked < 5:  # a turn after the other, over whichever gateway answers
        reply = _ask(pair, session, f"m-{asked}")
        assert reply["type"] == "reply.completed", reply
        asked += 1
    for thread in watching:
        thread.join(timeout=60)
    until = time.monotonic() + 20
    while len(reader.completed) < asked and time.monotonic() < until:
        time.sleep(0.05)
    reader.stopped = True
    _ask(pair, session, "last")  # so that it has something to read
    reader.thread.join(timeout=30)
    assert {code for code, _ in codes} == {1012} and len(codes) == len(sockets)
    assert reader.connections > 1 and len(reader.completed) >= asked and not reader.torn
    assert before not in [p.pid for p in pair.local.processes()]


def _ask(fleet: TestFleet, session: str, id: str) -> dict[str, Any]:
    """On a connection of its own. Nothing is tried again: no turn is to fail."""
    with httpx2.Client(base_url=fleet.url, headers=bearer("dev"), timeout=60) as client:
        answer = client.post(
            f"/v1/sessions/{session}/messages?wait=true", json={"id": id, "text": "Please go on."}
        )
    assert answer.status_code == 200, answer.text
    return answer.json()
