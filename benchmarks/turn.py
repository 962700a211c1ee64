"""The time from a message to the first character of its reply, hop by hop, beside what the same gateway
takes to echo: `python -m benchmarks.turn`.

One turn at a time, durable (PostgreSQL with fsync, Valkey with AOF), over one WebSocket; the scripted
model answers at once, so what remains is the fleet. Echo and turn alternate on the same socket.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

import msgspec
import numpy as np
from websockets.sync.client import ClientConnection

from benchmarks.fleet import OwnFleet
from benchmarks.report import Result, arguments, report

HOPS = ("queued", "retrieval", "prompt", "first_token", "overhead")
QUESTION = "How much does the Gold Card cost a year?"
DOCUMENTS = [
    {"id": f"cards/{name}", "title": f"{name} Card", "text": f"The {name} Card costs {cost} dollars a year."}
    for name, cost in (("Blue", 0), ("Gold", 95), ("Platinum", 250))
]


class Round(msgspec.Struct, frozen=True):
    """Milliseconds of each turn of a round."""

    echo: list[float]
    first: list[float]
    hops: dict[str, list[float]]


def echo(socket: ClientConnection) -> float:
    began = time.perf_counter()
    socket.send('{"type":"ping"}')
    while json.loads(socket.recv(timeout=30))["type"] != "pong":
        continue
    return (time.perf_counter() - began) * 1000


def turn(socket: ClientConnection, id: str) -> tuple[float, dict[str, float]]:
    """Milliseconds to the first delta, and the fleet's own timing."""
    began, first = time.perf_counter(), 0.0
    socket.send(json.dumps({"type": "message", "id": id, "text": QUESTION}))
    while True:
        event = json.loads(socket.recv(timeout=30))
        if event["type"] == "reply.delta" and not first:
            first = (time.perf_counter() - began) * 1000
        elif event["type"] == "reply.completed":
            return first, event["data"]["timing"]


def measure(fleet: OwnFleet, turns: int, rounds: int) -> list[Round]:
    done: list[Round] = []
    with fleet.socket(fleet.session("bank")) as socket:
        for n in range(20):  # warm-up
            turn(socket, f"warm-{n}")
            echo(socket)
        for number in range(rounds):
            echoes: list[float] = []
            firsts: list[float] = []
            hops: dict[str, list[float]] = {hop: [] for hop in HOPS}
            for n in range(turns):
                echoes.append(echo(socket))
                first, timing = turn(socket, f"m-{number}-{n}")
                firsts.append(first)
                for hop in HOPS:
                    hops[hop].append(timing[hop])
            done.append(Round(echoes, firsts, hops))
    return done


def results(rounds: Sequence[Round]) -> list[Result]:
    echo = {q: float(np.median([np.percentile(r.echo, q) for r in rounds])) for q in (50, 95)}
    found = [
        _result(
            f"first_token_p{q}_ms",
            [r.first for r in rounds],
            q,
            target=5.0 if q == 50 else None,
            echo=echo[q],
        )
        for q in (50, 95)
    ]
    for hop in HOPS:
        for q in (50, 95):
            found.append(
                _result(
                    f"{hop if hop == 'overhead' else 'hop_' + hop}_p{q}_ms", [r.hops[hop] for r in rounds], q
                )
            )
    return found


def _result(
    measure: str,
    rounds: Sequence[Sequence[float]],
    q: int,
    *,
    target: float | None = None,
    echo: float | None = None,
) -> Result:
    values = [float(np.percentile(values, q)) for values in rounds]
    middle = float(np.median(values))
    return Result(
        measure=measure,
        value=round(middle, 3),
        unit="ms",
        better="lower",
        target=target,
        peer="gateway_echo" if echo else None,
        peer_value=round(echo, 3) if echo else None,
        samples=sum(map(len, rounds)),
        spread=round((max(values) - min(values)) / middle, 3) if middle else None,
    )


def main() -> None:
    options = arguments("turn", "First token of one durable turn, hop by hop.").parse_args()
    fleet = OwnFleet(FLOTILLA_SCRIPTED_TOKEN_S="0")
    try:
        fleet.up().know("bank", DOCUMENTS)
        rounds = measure(fleet, turns=50 if options.quick else 300, rounds=3)
    finally:
        fleet.down()
    report("turn", results(rounds), options.json)


if __name__ == "__main__":
    main()
