"""A socket as ASGI has it, for gateways without HAProxy in front: a queue, and a task that writes it out."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from flotilla.core.limits import LIMITS
from serve.sockets.conversation import Conversation


class AsgiEnd:
    """Implements `End`."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws
        self.request_id: str = ws.state.request_id
        self._out: deque[str] = deque()
        self._close: tuple[int, str] | None = None
        self._arrived = asyncio.Event()
        self._reading = asyncio.Event()
        self._reading.set()

    def send(self, json: bytes) -> bool:
        if self._close is None:
            self._out.append(json.decode())
            self._arrived.set()
        ready = len(self._out) < LIMITS.link_window_items // 2
        if not ready:
            self.hold()  # who doesn't read is not read: each ping would add a pong to what waits
        return ready

    def close(self, code: int, reason: str = "") -> None:
        self._close = self._close or (code, reason)
        self._arrived.set()

    def hold(self) -> None:
        self._reading.clear()

    def go_on(self) -> None:
        self._reading.set()

    async def run(self, conversation: Conversation) -> None:
        """Until either side is done."""
        out = asyncio.create_task(self.write(conversation))
        back = asyncio.create_task(self._read(conversation))
        try:
            await asyncio.wait({out, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:  # also when Serve cancels us, as it does once the other side has hung up
            conversation.over()
            for task in (out, back):
                task.cancel()
            await asyncio.gather(out, back, return_exceptions=True)

    async def write(self, conversation: Conversation | None = None) -> None:
        """Until it is closed, or the other side has gone."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while True:
                while self._out:
                    await self._ws.send_text(self._out.popleft())
                if conversation is not None:
                    conversation.caught_up()
                    if not conversation.full:
                        self.go_on()
                if self._close is not None:
                    return await self._ws.close(*self._close)
                self._arrived.clear()
                await self._arrived.wait()

    async def _read(self, conversation: Conversation) -> None:
        while self._ws.client_state is WebSocketState.CONNECTED:
            await self._reading.wait()
            message = await self._ws.receive()
            if message["type"] == "websocket.disconnect":
                return
            conversation.hear(message.get("text"))
