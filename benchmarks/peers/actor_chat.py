"""(b) A Ray actor per conversation: a Serve ingress gets or creates the named actor
(https://docs.ray.io/en/latest/ray-core/actors/named-actors.html, `get_if_exists`), whose turn is an async generator
(https://docs.ray.io/en/latest/ray-core/ray-generator.html, "Generator from Actor Tasks"). An actor remembers its
conversation in memory, and is a process.

Its natural protocol is HTTP with a streamed answer. The ingress keeps the handles that it has got.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import aiohttp
import ray
from fastapi import FastAPI
from ray import serve
from starlette.responses import StreamingResponse

from benchmarks.peers.client import Streamed, read_data
from benchmarks.peers.rays import OPTIONS, Ask, event, own_ray, processes
from benchmarks.peers.script import QUESTION, reply
from benchmarks.peers.servers import Peer, Server, Way
from flotilla.cli.local import free_port
from flotilla.core.ids import new_id

# A process each, of about 60 MB and a second of a core to start: what a small machine takes.
ACTORS_MAX = 24

fastapi_app = FastAPI()


@ray.remote(num_cpus=0)
class Session:
    def __init__(self) -> None:
        self._history: list[tuple[str, str]] = []

    async def turn(self, text: str, pace_s: float) -> AsyncGenerator[str]:
        said: list[str] = []
        async for token in reply(pace_s):
            said.append(token)
            yield token
        self._history.append((text, "".join(said)))


@serve.deployment(**OPTIONS)
@serve.ingress(fastapi_app)  # pyright: ignore[reportUntypedClassDecorator]
class Chat:
    def __init__(self) -> None:
        self._sessions: dict[str, Any] = {}

    @fastapi_app.post("/sessions/{session}/turns")
    async def turn(self, session: str, ask: Ask) -> StreamingResponse:
        return StreamingResponse(self._stream(session, ask), media_type="text/event-stream")

    async def _stream(self, session: str, ask: Ask) -> AsyncGenerator[bytes]:
        async for ref in self._session(session).turn.remote(ask.text, ask.pace_s):
            yield event(await ref)

    def _session(self, name: str) -> Any:
        if name not in self._sessions:
            make: Any = Session
            actor = make.options(name=name, get_if_exists=True, lifetime="detached").remote()
            self._sessions[name] = actor
        return self._sessions[name]


app: Any = Chat.bind()  # type: ignore[attr-defined]


@contextmanager
def start() -> Generator[Server]:
    port = free_port()

    async def opened(http: aiohttp.ClientSession, pace_s: float) -> Streamed:
        url = f"http://127.0.0.1:{port}/sessions/{new_id('s')}/turns"
        return Streamed(http, url, {"text": QUESTION, "pace_s": pace_s}, read_data)

    with own_ray(__name__, port, ha_proxy=True) as local:
        way = Way(name="a Ray actor per conversation", open=opened, keeps=True, conversations_max=ACTORS_MAX)
        yield Server(ways=[way], processes=partial(processes, local))


PEER = Peer(name="b", start=start)
