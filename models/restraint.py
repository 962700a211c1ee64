"""An engine that shares its cores with another waits asleep, and not in circles. Runs in the engine's own process.

Between the parallel pieces of a step the threads of an OpenMP team wait for each other, and libgomp has them spin for
some milliseconds before they sleep. Alone on its cores an engine is a quarter faster for it. With two engines the
threads that spin keep those from running that they, or the other's, wait for: together they made a thirteenth of
the tokens (docs/decisions/0029). libgomp spins next to never in a process that has more threads in its teams than the
machine has cores (`gomp_throttled_spin_count_var` of its `env.c`): so an engine that isn't alone keeps an idle
team, and lets it go when it is alone again.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from models import neighbours

LOOKS_EVERY_S = 0.05
logger = logging.getLogger("flotilla.engine")


class IdleTeam:
    """So many threads, asleep. libgomp keeps a team for as long as the thread lives that it was made for."""

    def __init__(self, threads: int) -> None:
        self._enough = threading.Event()
        self._made = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(threads,), name="idle team", daemon=True)
        self._thread.start()
        self._made.wait()

    def _hold(self, threads: int) -> None:
        libraries: Any = ctypes.CDLL(None)
        # Each thread of the team is to do nothing, and must not need Python for it: it frees a null pointer.
        nothing = ctypes.cast(libraries.free, ctypes.c_void_p)
        libraries.GOMP_parallel(nothing, None, ctypes.c_uint(threads), ctypes.c_uint(0))
        self._made.set()
        self._enough.wait()

    def end(self) -> None:
        self._enough.set()
        self._thread.join()


def mind() -> None:
    """From now on, if this process was told its seat and computes with libgomp."""
    if (mine := os.environ.get(neighbours.VARIABLE)) and hasattr(ctypes.CDLL(None), "GOMP_parallel"):
        threading.Thread(target=_mind, args=(Path(mine),), name="restraint", daemon=True).start()


def _mind(mine: Path) -> None:
    team: IdleTeam | None = None
    while True:
        team = _restrained(team, crowded(mine))
        time.sleep(LOOKS_EVERY_S)


def _restrained(team: IdleTeam | None, needed: bool) -> IdleTeam | None:
    if needed == (team is not None):
        return team
    logger.info("Shares its cores." if needed else "Has its cores to itself.")
    if team is None:
        return IdleTeam(cores() + 1)
    team.end()
    return None


def crowded(mine: Path) -> bool:
    """Whether the engines that are busy have more threads than there are cores."""
    own = int(mine.name.split("-")[1])
    others = neighbours.busy_threads(mine)
    return bool(others) and own + others > cores()


def cores() -> int:
    return len(os.sched_getaffinity(0))
