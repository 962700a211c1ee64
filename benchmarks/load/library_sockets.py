"""Conversations over WebSocket by the `websockets` library: what the lean client was measured against."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from benchmarks.load.conversation import Conversation
from benchmarks.load.frames import decode
from benchmarks.load.notes import Turn
from benchmarks.load.sockets import Lost, message


class LibraryWay:
    def __init__(self, url: str, key: str) -> None:
        self.base = url.replace("http", "ws", 1)
        self.headers = {"Authorization": f"Bearer {key}"}

    def door(self, conversation: Conversation, lost: Lost) -> LibraryDoor:
        return LibraryDoor(self, conversation, lost)


class LibraryDoor:
    """A task for each socket reads; sends are tasks too, since the library's are coroutines."""

    def __init__(self, way: LibraryWay, conversation: Conversation, lost: Lost) -> None:
        self._way = way
        self._conversation = conversation
        self._lost = lost
        self._socket: ClientConnection | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> bool:
        return self._socket is not None

    async def connect(self) -> None:
        """Raises `ConnectionError`."""
        path = f"/v1/sessions/{self._conversation.session}/ws?after={self._conversation.place}"
        try:
            self._socket = await connect(
                self._way.base + path,
                additional_headers=self._way.headers,
                compression=None,
                ping_interval=None,
                proxy=None,
            )
        except (WebSocketException, OSError, TimeoutError) as error:
            raise ConnectionError(str(error)) from error
        self._keep(asyncio.create_task(self._read(self._socket)))
        self._conversation.connected()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self, socket: ClientConnection) -> None:
        async for text in socket:
            self._conversation.take(decode(text))
        if self._socket is socket:
            self._socket = None
            self._lost(self._conversation, 0)

    def post(self, turn: Turn) -> None:
        if self._socket is not None:
            self._keep(asyncio.create_task(self._socket.send(message(turn), text=True)))

    def cut(self) -> bool:
        if self._socket is not None:
            self._socket.transport.abort()
        return self._socket is not None

    async def close(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()
