"""Who else computes on this machine's cores: a file for each engine, locked for as long as it is busy.

A lock ends with the process that holds it, however that ends. Engines of all fleets of one user see each other.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

FOLDER = Path(tempfile.gettempdir()) / f"flotilla-engines-{os.getuid()}"
VARIABLE = "FLOTILLA_ENGINE_SEAT"
"""Tells an engine's process which seat is its own."""
EXPECTED_S = 10.0  # a process that is started takes less until it has a seat of its own
IDLE_AFTER_S = 2.0  # conversations pause; an engine that has just answered will be asked again


class Seat:
    """One engine's, which computes with so many `threads`. Busy from the start; `leave` it."""

    def __init__(self, threads: int, folder: Path | None = None) -> None:
        folder = folder or FOLDER
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = folder / f"{os.getpid()}-{threads}-{uuid4().hex[:8]}"
        self._file = self.path.open("x")
        self._users = 0
        self.busy()

    def __repr__(self) -> str:
        return f"<Seat {self.path.name}, {self._users} users>"

    def busy(self) -> None:
        if not self._file.closed:
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def idle(self) -> None:
        if not self._file.closed:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    @contextmanager
    def used(self) -> Generator[None]:
        """Busy meanwhile, and for a moment after the last user. In an event loop."""
        self._users += 1
        if self._users == 1:
            self.busy()
        try:
            yield
        finally:
            self._users -= 1
            self.idle_soon()

    def idle_soon(self) -> None:
        if not self._users:
            asyncio.get_running_loop().call_later(IDLE_AFTER_S, self._unless_used)

    def _unless_used(self) -> None:
        if not self._users:
            self.idle()

    def leave(self) -> None:
        self.path.unlink(missing_ok=True)
        self._file.close()


def expect(folder: Path | None = None) -> None:
    """A seat for a process that is about to be started: it computes before it can say so. In an event loop."""
    asyncio.get_running_loop().call_later(EXPECTED_S, Seat(1, folder).leave)


def busy_threads(mine: Path) -> int:
    """How many threads the busy engines beside `mine` compute with."""
    return sum(threads for path, threads in _seats(mine.parent) if path != mine and _is_busy(path))


def _seats(folder: Path) -> Iterator[tuple[Path, int]]:
    """Those whose processes live; what others have left behind is swept away."""
    with suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            pid, threads, _ = path.name.split("-")
            if Path("/proc", pid).exists():
                yield path, int(threads)
            else:
                path.unlink(missing_ok=True)


def _is_busy(path: Path) -> bool:
    with suppress(FileNotFoundError), path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
