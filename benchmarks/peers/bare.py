"""(d) The floor: an ASGI application of one function on uvicorn's WebSocket, nothing else. As uvicorn's own page has
it: https://www.uvicorn.org/concepts/asgi/. It speaks the frames of our own socket, and forgets everything.

Its natural protocol is the WebSocket.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.fleet import ROOT
from benchmarks.peers.client import Socket, read_frame
from benchmarks.peers.script import QUESTION, reply
from benchmarks.peers.servers import Peer, Server, Way, group, running
from flotilla.cli.local import free_port


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "http":  # whoever asks whether it is up
        await send({"type": "http.response.start", "status": 200})
        return await send({"type": "http.response.body"})
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        async for token in reply(json.loads(message["text"])["pace_s"]):
            await send({"type": "websocket.send", "text": json.dumps({"text": token})})
        await send({"type": "websocket.send", "text": json.dumps({"ended": True})})
    return None


@contextmanager
def start() -> Generator[Server]:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    words = [sys.executable, "-m", "uvicorn", f"{__name__}:app", "--port", str(port)]
    words += ["--lifespan", "off", "--log-level", "warning"]
    with tempfile.TemporaryDirectory() as folder, running(words, url, Path(folder) / "log", cwd=ROOT) as up:

        async def opened(http: aiohttp.ClientSession, pace_s: float) -> Socket:
            socket = await http.ws_connect(url.replace("http", "ws", 1))
            message = {"text": QUESTION, "pace_s": pace_s}
            return Socket(socket, lambda: message, read_frame)

        way = Way(name="bare uvicorn WebSocket", open=opened, keeps=True)
        yield Server(ways=[way], processes=lambda: group(up))


PEER = Peer(name="d", start=start)
