"""A socket that comes through ASGI: what waits for a client that doesn't read is bounded."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from starlette.websockets import WebSocketState

from flotilla.core.limits import LIMITS
from serve.sockets.asgi import AsgiEnd
from serve.sockets.conversation import PONG


class Ws:
    """A client that says a lot, and reads when it is told to."""

    client_state = WebSocketState.CONNECTED
    state = SimpleNamespace(request_id="req_1")

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.said = 0
        self.got: list[str] = []
        self.most = 5_000

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        self.said += 1
        if self.said > self.most:
            return {"type": "websocket.disconnect"}
        return {"type": "websocket.receive", "text": '{"type":"ping"}'}

    async def send_text(self, text: str) -> None:
        await self.reads.wait()
        self.got.append(text)

    async def close(self, *_: Any) -> None:
        pass


class Pings:
    """A conversation of nothing else."""

    full = False

    def __init__(self, end: AsgiEnd) -> None:
        self._end = end

    def hear(self, text: str | None) -> None:
        self._end.send(PONG)

    def caught_up(self) -> None:
        pass

    def over(self) -> None:
        pass


async def test_who_asks_and_does_not_read_the_answers_is_not_read() -> None:
    ws: Any = Ws()
    end = AsgiEnd(ws)
    pings: Any = Pings(end)
    running = asyncio.create_task(end.run(pings))
    for _ in range(2 * ws.most):
        await asyncio.sleep(0)
    assert ws.said < LIMITS.link_window_items
    ws.reads.set()
    async with asyncio.timeout(5):
        await running
    assert ws.said > ws.most and len(ws.got) > ws.most - LIMITS.link_window_items
