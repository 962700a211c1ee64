"""All open sockets of a gateway: how many there may be, which are dead, and how they go when it does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, Protocol

from flotilla.core.errors import Overloaded
from flotilla.core.limits import LIMITS
from serve.doors import Doors
from serve.metrics import OPEN_SOCKETS
from serve.sockets import codes

SWEEP_EVERY_S = 2.0
DRAIN_SLICE_S = 0.05


class Socket(Protocol):
    heard_at: float
    stuck_at: float | None

    @property
    def request_id(self) -> str: ...

    def send(self, json: bytes) -> bool: ...

    def close(self, code: int, reason: str = "") -> None: ...

    def ping(self) -> None: ...

    def abort(self) -> None: ...


class Sockets:
    """`doors` are looked up when the first socket comes: a gateway has them once it runs."""

    def __init__(self, doors: Callable[[], Doors]) -> None:
        self._doors = doors
        self._open: set[Socket] = set()
        self._closing: dict[Socket, float] = {}  # since when
        self._spawned: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self.draining = False

    def __repr__(self) -> str:
        return f"<Sockets: {len(self._open)} open{', draining' if self.draining else ''}>"

    def __len__(self) -> int:
        return len(self._open)

    @property
    def doors(self) -> Doors:
        return self._doors()

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def refusal(self) -> str:
        """Why no other socket is taken; empty if one is."""
        if self.draining:
            return "This gateway is going. Come back."
        if len(self._open) > LIMITS.sockets_max:
            return f"{LIMITS.sockets_max} sockets are open here."
        return ""

    def add(self, socket: Socket) -> None:
        self._open.add(socket)
        OPEN_SOCKETS.set(len(self._open))
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep_for_ever())

    def discard(self, socket: Socket) -> None:
        self._open.discard(socket)
        self._closing.pop(socket, None)
        OPEN_SOCKETS.set(len(self._open))

    def closing(self, socket: Socket) -> None:
        """It has `LIMITS.socket_close_s` to say goodbye."""
        if socket in self._open:
            self._closing.setdefault(socket, self.now())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)

    # -- the dead

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            self.sweep(self.now())

    def sweep(self, now: float) -> None:
        for socket in list(self._open):
            with self._by_itself(socket):
                self._look_at(socket, now)

    def _look_at(self, socket: Socket, now: float) -> None:
        quiet_s = now - socket.heard_at
        if quiet_s > LIMITS.socket_dead_s or self._closing.get(socket, now) < now - LIMITS.socket_close_s:
            socket.abort()
        elif socket.stuck_at is not None and now - socket.stuck_at > LIMITS.socket_stuck_s:
            self._let_go(socket)
        elif quiet_s > LIMITS.socket_ping_after_s:
            socket.ping()

    @contextmanager
    def _by_itself(self, socket: Socket) -> Generator[None]:
        """A bug that shows at one socket must not keep the others from being looked after."""
        try:
            yield
        except Exception as error:
            self._open.discard(socket)
            self.doors.log.error("socket.broke", exc_info=error)

    def _let_go(self, socket: Socket) -> None:
        """What it has seen it knows by `seq` and offset: it may come back for the rest."""
        error = Overloaded(
            f"Nothing was read here for {LIMITS.socket_stuck_s:g} s.",
            next="Connect again with `after` set to the last seq seen.",
            retry_after_s=1.0,
        )
        socket.send(codes.error_frame(error, socket.request_id))
        socket.close(codes.TRY_AGAIN, error.title)
        socket.stuck_at = None

    # -- going

    async def drain(self, after_s: float, within_s: float) -> None:
        """Takes no more, and once nobody is sent here any more (`after_s`) lets those that are open go, a few
        at a time: their clients all come back elsewhere."""
        self.draining = True
        await asyncio.sleep(after_s)
        going = list(self._open)
        each = max(1, int(len(going) * DRAIN_SLICE_S / max(within_s, DRAIN_SLICE_S)))
        while going:
            batch, going = going[:each], going[each:]
            for socket in batch:
                with self._by_itself(socket):
                    socket.close(codes.SERVICE_RESTART, "This gateway is going. Come back.")
            await asyncio.sleep(DRAIN_SLICE_S)
