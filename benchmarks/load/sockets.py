"""Conversations over WebSocket, lean: picows (C) hands each frame to one Python call (docs/decisions/0027)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import msgspec
from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.load.conversation import Conversation
from benchmarks.load.frames import decode
from benchmarks.load.notes import Turn
from benchmarks.load.texts import TEXTS

CONNECT_TIMEOUT_S = 15.0
READ_BUFFER_BYTES = 512  # grows when a frame is longer
PORTS_OF_ONE_ADDRESS = 20_000
"""Ephemeral ports are 28,000 an address; past this many sockets, another address of the loopback is used."""

PING = b'{"type":"ping"}'
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset, not with a good-bye
Lost = Callable[[Conversation, int], None]
_TEXTS = [msgspec.json.encode(text) for text in TEXTS]


def message(turn: Turn) -> bytes:
    """The frame that says it."""
    return b'{"type":"message","id":"%b","text":%b}' % (turn.id.encode(), _TEXTS[turn.text])


class Way:
    """What all sockets of a process share: where to, and by which key."""

    def __init__(self, url: str, key: str) -> None:
        self._base = url.replace("http", "ws", 1)
        self._local = urlsplit(url).hostname in ("127.0.0.1", "localhost")
        self._headers = {"Authorization": f"Bearer {key}"}
        self._opened = count()

    def door(self, conversation: Conversation, lost: Lost) -> SocketDoor:
        return SocketDoor(self, conversation, lost)

    async def connect(self, door: SocketDoor) -> WSTransport:
        """Raises `ConnectionError`."""
        path = f"/v1/sessions/{door.conversation.session}/ws?after={door.conversation.place}"
        try:
            transport, _ = await ws_connect(
                lambda: _Listener(door),
                self._base + path,
                extra_headers=self._headers,
                websocket_handshake_timeout=CONNECT_TIMEOUT_S,
                read_buffer_init_size=READ_BUFFER_BYTES,
                proxy=None,
                **self._address(),
            )
        except (OSError, TimeoutError, WSError) as error:
            raise ConnectionError(f"{type(error).__name__}: {error}"[:200]) from error
        return transport

    def _address(self) -> dict[str, Any]:
        """An address of its own for the sockets that the first has no ports for."""
        address = 1 + next(self._opened) // PORTS_OF_ONE_ADDRESS
        return {"local_addr": (f"127.0.0.{address % 250}", 0)} if self._local and address > 1 else {}


class SocketDoor:
    """One conversation's. It does not come back by itself: `lost` is told, with the close code or 0."""

    __slots__ = ("_ponged", "_transport", "_way", "conversation", "lost")

    def __init__(self, way: Way, conversation: Conversation, lost: Lost) -> None:
        self._way = way
        self.conversation = conversation
        self.lost = lost
        self._transport: WSTransport | None = None
        self._ponged: asyncio.Future[None] | None = None

    @property
    def open(self) -> bool:
        return self._transport is not None

    stands = open  # it is connected, or it is not: this client has no other way of being open

    def post(self, turn: Turn) -> None:
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, message(turn))

    async def connect(self) -> None:
        """Raises `ConnectionError`."""
        self.conversation.coming_back()
        self._transport = await self._way.connect(self)
        self.conversation.connected()

    async def answers(self) -> None:
        """Returns when the server reads this socket and answers it. Raises `ConnectionError`."""
        if self._transport is None:
            raise ConnectionError("The socket is closed.")
        self._ponged = asyncio.get_running_loop().create_future()
        self._transport.send(WSMsgType.TEXT, PING)
        await self._ponged

    def take(self, payload: bytes) -> None:
        try:
            event = decode(payload)
        except msgspec.DecodeError as error:
            return self.conversation.notes.error("unreadable", f"{error}: {payload[:100]!r}")
        if event.type == "pong":
            return self._answered(None)
        return self.conversation.take(event)

    def _answered(self, error: ConnectionError | None) -> None:
        if self._ponged is None or self._ponged.done():
            return
        if error is None:
            self._ponged.set_result(None)
        else:
            self._ponged.set_exception(error)

    def gone(self, transport: WSTransport) -> None:
        """Its connection has ended."""
        if transport is not self._transport:
            return
        self._transport = None
        self._answered(ConnectionError("The socket was closed."))
        self.lost(self.conversation, _code(transport))

    def cut(self) -> bool:
        if self._transport is None:
            return False
        under = self._transport.underlying_transport
        under.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        under.abort()
        return True

    async def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.disconnect()


class _Listener(WSListener):
    def __init__(self, door: SocketDoor) -> None:
        self._door = door

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        match frame.msg_type:
            case WSMsgType.TEXT:
                self._door.take(frame.get_payload_as_bytes())
            case WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code())
                transport.disconnect()
            case _:
                pass

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._door.gone(transport)


def _code(transport: WSTransport) -> int:
    shaken = transport.close_handshake
    received = shaken.recv if shaken else None
    return received.code.value if received else 0
