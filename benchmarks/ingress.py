"""HAProxy with direct ingress beside Serve's own proxy, in one run: `python -m benchmarks.ingress`.

The same fleet twice, one after the other, each with one WebSocket and one kept HTTP connection: what an echo
takes, a health check, and the first token of a durable turn of an agent that looks nothing up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np

from benchmarks.fleet import OwnFleet
from benchmarks.report import Result, arguments, report
from benchmarks.turn import echo, turn

WARM_UP = 30
SETTINGS = {"FLOTILLA_SCRIPTED_TOKEN_S": "0", "FLOTILLA_SCRIPTED_TOKENS": "10"}
MODES = {"haproxy": "1", "proxy": "0"}

Figures = dict[str, list[float]]
"""Milliseconds by what was measured."""


def times(once: Callable[[int], float], count: int) -> list[float]:
    for n in range(WARM_UP):
        once(-n - 1)
    return [once(n) for n in range(count)]


def measure(mode: str, count: int) -> Figures:
    fleet = OwnFleet(**SETTINGS, FLOTILLA_HA_PROXY=MODES[mode])
    try:
        fleet.up()
        with fleet.socket(fleet.session("chat")) as socket:
            return {
                "echo": times(lambda _: echo(socket), count),
                "first_token": times(lambda n: turn(socket, f"m-{n}")[0], count),
                "healthz": times(lambda _: _health(fleet), count),
            }
    finally:
        fleet.down()


def _health(fleet: OwnFleet) -> float:
    began = time.perf_counter()
    assert json.loads(fleet.http.get("/healthz").content)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    options = arguments("ingress", "HAProxy beside the proxy of Serve.").parse_args()
    count = 200 if options.quick else 1000
    haproxy, proxy = (measure(mode, count) for mode in MODES)
    results = [
        Result(
            measure=f"{name}_p{at}_ms",
            value=float(np.percentile(haproxy[name], at)),
            unit="ms",
            better="lower",
            peer="Serve's Python proxy",
            peer_value=float(np.percentile(proxy[name], at)),
            samples=count,
        )
        for name in haproxy
        for at in (50, 95)
    ]
    report("ingress", results, options.json)


if __name__ == "__main__":
    main()
