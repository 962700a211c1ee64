"""Closes the ways out of the simulation: real time, real chance, real sleep, threads and sockets.

Inside `sealed`, what the code under test can get hold of without a port either follows from the seed
(names, `random`, `time`, `os.urandom`) or raises `Escape`.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from flotilla.core import ids
from simulation.clock import BEGINNING
from simulation.loop import SimLoop
from simulation.tasks import Escape

_BEGAN_S = BEGINNING.timestamp()


def _refuse(what: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise Escape(f"{what} was to leave the simulation.")

    return refuse


@contextmanager
def sealed(loop: SimLoop, seed: int) -> Generator[None]:
    """For the run of one loop."""
    chance = random.Random(f"names {seed}")

    def wall_s() -> float:
        return _BEGAN_S + loop.time()

    ways: list[tuple[Any, str, Any]] = [
        (ids.Draw, "number", staticmethod(lambda: int(wall_s() * 1000) << 80 | chance.getrandbits(80))),
        (os, "urandom", chance.randbytes),
        (time, "time", wall_s),
        (time, "time_ns", lambda: int(wall_s() * 1e9)),
        (time, "monotonic", loop.time),
        (time, "perf_counter", loop.time),
        (time, "sleep", _refuse("time.sleep")),
        (threading.Thread, "start", _refuse("A thread")),
        (socket.socket, "connect", _refuse("A socket")),
        (socket.socket, "bind", _refuse("A socket")),
    ]
    kept = [(owner, name, vars(owner).get(name, _INHERITED)) for owner, name, _ in ways]
    state = random.getstate()
    random.seed(f"random {seed}")
    try:
        for owner, name, way in ways:
            setattr(owner, name, way)
        yield
    finally:
        for owner, name, before in kept:
            if before is _INHERITED:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
        random.setstate(state)


_INHERITED = object()
