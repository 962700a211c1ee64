"""What the loop needs beside itself: its tasks, its sockets, and the errors of a simulation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from simulation.process import Process


class Escape(RuntimeError):
    """The code under test has reached for the real world: a thread, a socket, a sleep."""


class Runaway(RuntimeError):
    """So many steps that the world will not come to an end."""


class Sockets(Protocol):
    def listen(self, protocols: Callable[[], asyncio.BaseProtocol], port: int) -> Any: ...

    async def connect(self, protocols: Callable[[], asyncio.BaseProtocol], port: int) -> tuple[Any, Any]: ...


class SimTask(asyncio.Task[Any]):
    """A task of a process. Its hash is its number, so that sets of tasks have the same order each time."""

    process: Process
    number: int

    def __hash__(self) -> int:
        return self.number

    def forget(self) -> None:
        """Drops it where it stands; its `finally` blocks run as far as they don't wait."""
        self._log_destroy_pending = False
        coroutine: Any = self.get_coro()
        with contextlib.suppress(BaseException):
            coroutine.close()
