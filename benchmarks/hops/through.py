"""The hops that need a fleet: its gateway's echo, a search, and whole turns, over HAProxy as a client's."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from websockets.sync.client import ClientConnection

from benchmarks.fleet import OwnFleet
from benchmarks.hops.measuring import Hop, Meter, Seconds
from benchmarks.turn import QUESTION, echo
from flotilla.cli.processes import named

TOKEN_S = 0.02
"""Slow enough for each token to be a delta of its own, on a busy machine too."""
# The model quotes it: a reply of 60 tokens.
DOCUMENTS = [
    {
        "id": "gold",
        "title": "Gold Card",
        "text": "The Gold Card costs 95 dollars a year, and in return it gives three percent cash back on travel "
        "and dining, two visits a year to airport lounges, free transfers abroad, a replacement within three "
        "working days when it is lost, help by telephone at any hour of the day or of the night, and a month of "
        "notice before anything changes.",
    }
]
WARM_UP = 20
WARM_UP_TURNS = 5
ECHOES_A_TURN = 20
"""They take so little that processor time, counted in hundredths of a second, wants many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Milliseconds from the message to its first and last delta; how many there were."""

    first: float
    last: float
    deltas: int
    timing: dict[str, float]

    @property
    def lag(self) -> float:
        """What the stream took longer than the engine made its tokens in."""
        return self.last - self.first - self.timing["generation"]


def hops(turns: int) -> list[Hop]:
    """On a fleet of its own, whose model says a token every 20 ms."""
    fleet = OwnFleet(FLOTILLA_SCRIPTED_TOKEN_S=str(TOKEN_S))
    try:
        fleet.up().know("bank", DOCUMENTS)
        meter = Meter(lambda: named(fleet.local))
        quick = turns * ECHOES_A_TURN
        return [*echoes(fleet, meter, quick), search(fleet, meter, turns), *whole(fleet, meter, turns)]
    finally:
        fleet.down()


def _repeat(meter: Meter, operation: Callable[[], float], operations: int) -> tuple[list[float], Seconds]:
    for _ in range(WARM_UP):
        operation()
    meter.begin()
    ms = [operation() for _ in range(operations)]
    return ms, meter.each(operations)


def echoes(fleet: OwnFleet, meter: Meter, operations: int) -> list[Hop]:
    def health() -> float:
        began = time.perf_counter()
        fleet.http.get("/healthz").raise_for_status()
        return (time.perf_counter() - began) * 1000

    ms, cpu_us = _repeat(meter, health, operations)
    http = Hop(name="gateway echo, HTTP", about="GET /healthz", ms=ms, cpu_us=cpu_us)
    with fleet.socket(fleet.session("chat")) as socket:
        ms, cpu_us = _repeat(meter, lambda: echo(socket), operations)
    about = "ping and pong through HAProxy"
    return [http, Hop(name="gateway echo, WebSocket", about=about, ms=ms, cpu_us=cpu_us, passed=1)]


def search(fleet: OwnFleet, meter: Meter, operations: int) -> Hop:
    def ask() -> float:
        began = time.perf_counter()
        body = {"query": QUESTION, "limit": 4}
        fleet.http.post("/v1/knowledge/bank/search", json=body).raise_for_status()
        return (time.perf_counter() - began) * 1000

    ms, cpu_us = _repeat(meter, ask, operations)
    return Hop(name="search over HTTP", about="embed, BM25 and vectors", ms=ms, cpu_us=cpu_us)


def whole(fleet: OwnFleet, meter: Meter, turns: int) -> list[Hop]:
    """First tokens without and with knowledge; the stream of those with, since they are the longest."""
    chat, chat_cpu = _turns(fleet, meter, "chat", turns)
    bank, bank_cpu = _turns(fleet, meter, "bank", turns)
    retrieval = [one.timing["retrieval"] for one in bank]
    return [
        Hop(name="retrieval", about="as the host of the turns with knowledge measured it", ms=retrieval),
        Hop(
            name="first token, chat",
            about="durable, no knowledge; CPU of the whole turn",
            ms=[one.first for one in chat],
            cpu_us=chat_cpu,
        ),
        Hop(
            name="first token, bank",
            about="durable, with knowledge; CPU of the whole turn",
            ms=[one.first for one in bank],
            cpu_us=bank_cpu,
        ),
        _stream(bank, bank_cpu),
    ]


def _turns(fleet: OwnFleet, meter: Meter, agent: str, turns: int) -> tuple[list[Turn], Seconds]:
    with fleet.socket(fleet.session(agent)) as socket:
        for n in range(WARM_UP_TURNS):
            turn(socket, f"warm-{n}")
        meter.begin()
        return [turn(socket, f"m-{n}") for n in range(turns)], meter.each(turns)


def _stream(made: list[Turn], cpu_us: Seconds) -> Hop:
    deltas = float(np.mean([one.deltas for one in made]))
    return Hop(
        name="stream",
        about=f"{deltas:.0f} deltas: how much later the last one comes than the engine's; CPU a delta",
        ms=[max(0.0, one.lag) for one in made],
        cpu_us={name: us / deltas for name, us in cpu_us.items()},
    )


def turn(socket: ClientConnection, id: str) -> Turn:
    began = time.perf_counter()
    first = last = 0.0
    deltas = 0
    socket.send(json.dumps({"type": "message", "id": id, "text": QUESTION}))
    while True:
        event = json.loads(socket.recv(timeout=30))
        if event["type"] == "reply.delta":
            deltas += 1
            last = (time.perf_counter() - began) * 1000
            first = first or last
        elif event["type"] == "reply.completed":
            return Turn(first=first, last=last, deltas=deltas, timing=event["data"]["timing"])
