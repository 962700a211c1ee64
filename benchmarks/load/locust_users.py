"""The same conversations as locust users, for those who have a locust installation to run them in:

    FLOTILLA_SCENARIO=mini FLOTILLA_SEED=1 locust -f benchmarks/load/locust_users.py --headless -u 200 -r 50 -t 60s \
        --host http://127.0.0.1:8080

Locust is a closed loop: a user's next task begins when the last one is over. Here each user is a conversation with
a schedule of its own, the one that `python -m benchmarks.load` plays, and the two figures that are reported for
each way (`first token`, `reply`) count from the intended start. Storms, knees and verdicts are the lean client's.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from functools import cache
from itertools import count
from typing import Any, cast

import gevent
import grpc
import grpc.experimental.gevent as grpc_gevent
import requests
import websocket
from locust import User, task

from benchmarks.load import scenario as scenarios
from benchmarks.load.calls import plain
from benchmarks.load.conversation import Conversation
from benchmarks.load.frames import decode
from benchmarks.load.notes import COMPLETED, Notes, Turn
from benchmarks.load.scenario import WAYS
from benchmarks.load.schedule import schedule
from benchmarks.load.sockets import message
from benchmarks.load.texts import TEXTS
from benchmarks.load.watch import Watch
from flotilla.rpc import v1_pb2 as pb
from flotilla.rpc.v1_pb2_grpc import ConversationsStub

SCENARIO = scenarios.read(os.environ.get("FLOTILLA_SCENARIO", "mini"))
SEED = int(os.environ.get("FLOTILLA_SEED", "1"))
KEY = os.environ.get("FLOTILLA_KEY", "dev")
RPC = os.environ.get("FLOTILLA_RPC", "127.0.0.1:8081")
HORIZON_S = float(os.environ.get("FLOTILLA_SECONDS", "600"))
HEADERS = {"Authorization": f"Bearer {KEY}"}
BEGAN = time.monotonic()
_numbers = count()


@cache
def turns() -> dict[int, list[tuple[float, int]]]:
    """Of each conversation: when (seconds after it has connected) it says which text."""
    whole, found = (
        schedule(SCENARIO, SEED, "locust", HORIZON_S, 1.0),
        defaultdict[int, list[tuple[float, int]]](list),
    )
    for at, number, text in zip(whole.at_s, whole.conversation, whole.text, strict=True):
        found[number].append((at, text))
    return found


class _Told(Watch):
    """Tells locust what became of a turn."""

    def __init__(self, user: Talker) -> None:
        super().__init__(SCENARIO.slo.first_ms / 1000)
        self._user = user

    def first(self, turn: Turn) -> None:
        self._user.fire("first token", (turn.first - turn.intended) * 1000, turn, None)

    def over(self, turn: Turn) -> None:
        problem = None if turn.outcome == COMPLETED else RuntimeError(f"outcome {turn.outcome}")
        self._user.fire("reply", ((turn.end or time.monotonic()) - turn.intended) * 1000, turn, problem)


class Talker(User):
    """One conversation. What its way needs is in `open`, `connect` and `post`."""

    abstract = True
    way = 0
    open = False

    def on_start(self) -> None:
        self.number = next(_numbers) % SCENARIO.conversations
        self.http = requests.Session()
        self.http.headers.update(HEADERS)
        opened = self.http.post(f"{self.host}/v1/sessions", json={"agent": SCENARIO.agent}).json()
        self.conversation = Conversation(self.number, Notes(BEGAN), _Told(self), checks=False)
        self.conversation.session, self.conversation.seq = opened["id"], opened.get("seq", 0)
        self.conversation.door = cast(Any, self)
        self.http.close()  # opened again where messages are posted; idle connections are no part of a socket
        self.connect()
        self.open = True

    def connect(self) -> None: ...

    def post(self, turn: Turn) -> None:
        raise NotImplementedError

    @task
    def talk(self) -> None:
        began = time.monotonic()
        for n, (at_s, text) in enumerate(turns()[self.number]):
            gevent.sleep(max(0.0, began + at_s - time.monotonic()))
            self.conversation.ask(Turn(f"l-{n}", text, began + at_s, 0, self.way))
        gevent.sleep(HORIZON_S)

    def fire(self, name: str, milliseconds: float, turn: Turn, problem: Exception | None) -> None:
        self.environment.events.request.fire(
            request_type=WAYS[self.way],
            name=name,
            response_time=milliseconds,
            response_length=turn.characters,
            exception=problem,
            context={},
        )


class SocketUser(Talker):
    way, weight, abstract = 0, round(1000 * SCENARIO.ways.websocket), not SCENARIO.ways.websocket

    def connect(self) -> None:
        base = str(self.host).replace("http", "ws", 1)
        url = f"{base}/v1/sessions/{self.conversation.session}/ws?after={self.conversation.place}"
        self._socket = websocket.create_connection(url, header=HEADERS)
        gevent.spawn(self._read)

    def _read(self) -> None:
        while text := self._socket.recv():
            self.conversation.take(decode(text))

    def post(self, turn: Turn) -> None:
        self._socket.send(message(turn))

    def on_stop(self) -> None:
        self._socket.close()


class StreamUser(Talker):
    way, weight, abstract = 1, round(1000 * SCENARIO.ways.sse), not SCENARIO.ways.sse

    def connect(self) -> None:
        path = f"/v1/sessions/{self.conversation.session}/stream?after={self.conversation.place}"
        self._answer = requests.get(f"{self.host}{path}", headers=HEADERS, stream=True)
        self._reading = gevent.spawn(self._read)

    def _read(self) -> None:
        for line in self._answer.iter_lines(chunk_size=1):
            if line.startswith(b"data: "):
                self.conversation.take(decode(line[6:]))

    def post(self, turn: Turn) -> None:
        gevent.spawn(self._post, turn)

    def _post(self, turn: Turn) -> None:
        path = f"/v1/sessions/{self.conversation.session}/messages"
        answer = self.http.post(f"{self.host}{path}", json={"id": turn.id, "text": TEXTS[turn.text]})
        if answer.status_code >= 400:
            self.conversation.refused(answer.status_code, answer.text, None)

    def on_stop(self) -> None:
        self._reading.kill()


class WaitingUser(Talker):
    way, weight, abstract = 2, round(1000 * SCENARIO.ways.http), not SCENARIO.ways.http

    def post(self, turn: Turn) -> None:
        gevent.spawn(self._post, turn)

    def _post(self, turn: Turn) -> None:
        path = f"/v1/sessions/{self.conversation.session}/messages?wait=true"
        answer = self.http.post(f"{self.host}{path}", json={"id": turn.id, "text": TEXTS[turn.text]})
        if answer.status_code >= 400:
            return self.conversation.refused(answer.status_code, answer.text, None)
        return self.conversation.answered(decode(answer.content))


class RpcUser(Talker):
    way, weight, abstract = 3, round(1000 * SCENARIO.ways.grpc), not SCENARIO.ways.grpc

    def connect(self) -> None:
        grpc_gevent.init_gevent()
        self._stub: Any = ConversationsStub(grpc.insecure_channel(RPC))

    def post(self, turn: Turn) -> None:
        gevent.spawn(self._post, turn)

    def _post(self, turn: Turn) -> None:
        request = pb.SendRequest(session=self.conversation.session, id=turn.id, text=TEXTS[turn.text])
        self.conversation.connected_after = self.conversation.seq
        for event in self._stub.Send(request, metadata=(("authorization", f"Bearer {KEY}"),)):
            self.conversation.take(plain(event))
