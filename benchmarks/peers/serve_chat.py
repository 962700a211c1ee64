"""(a) A chat service on Ray Serve as its documentation builds one: a FastAPI ingress that streams
(https://docs.ray.io/en/latest/serve/tutorials/streaming.html, "Textbot") what comes over a handle from an agent,
to which it comes over a handle from the model (https://docs.ray.io/en/latest/serve/model_composition.html,
"Streaming DeploymentHandle calls"). Nothing is kept between turns.

Its natural protocol is HTTP with a streamed answer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import aiohttp
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.responses import StreamingResponse

from benchmarks.peers.client import Streamed, read_data
from benchmarks.peers.rays import OPTIONS, Ask, event, own_ray, processes
from benchmarks.peers.script import QUESTION, reply
from benchmarks.peers.servers import Peer, Server, Way
from flotilla.cli.local import free_port

fastapi_app = FastAPI()


@serve.deployment(**OPTIONS)
class Model:
    async def generate(self, text: str, pace_s: float) -> AsyncGenerator[str]:
        async for token in reply(pace_s):
            yield token


@serve.deployment(**OPTIONS)
class Agent:
    def __init__(self, model: DeploymentHandle[Any]) -> None:
        self._model: Any = model.options(stream=True)

    async def answer(self, text: str, pace_s: float) -> AsyncGenerator[str]:
        async for token in self._model.generate.remote(text, pace_s):
            yield token


@serve.deployment(**OPTIONS)
@serve.ingress(fastapi_app)  # pyright: ignore[reportUntypedClassDecorator]
class Chat:
    def __init__(self, agent: DeploymentHandle[Any]) -> None:
        self._agent: Any = agent.options(stream=True)

    @fastapi_app.post("/chat")
    async def chat(self, ask: Ask) -> StreamingResponse:
        return StreamingResponse(self._stream(ask), media_type="text/event-stream")

    async def _stream(self, ask: Ask) -> AsyncGenerator[bytes]:
        async for token in self._agent.answer.remote(ask.text, ask.pace_s):
            yield event(token)


app: Any = Chat.bind(Agent.bind(Model.bind()))  # type: ignore[attr-defined]


@contextmanager
def start(name: str, *, ha_proxy: bool, tuned: bool = False) -> Generator[Server]:
    port = free_port()

    async def opened(http: aiohttp.ClientSession, pace_s: float) -> Streamed:
        body = {"text": QUESTION, "pace_s": pace_s}
        return Streamed(http, f"http://127.0.0.1:{port}/chat", body, read_data)

    with own_ray(__name__, port, ha_proxy=ha_proxy, tuned=tuned) as local:
        yield Server(ways=[Way(name=name, open=opened)], processes=partial(processes, local))


PROXIED, BALANCED, TUNED = (
    "Ray Serve, Python proxy",
    "Ray Serve, HAProxy",
    "Ray Serve, HAProxy, throughput mode",
)
SERVES = (PROXIED, BALANCED, TUNED)
PEERS = (
    Peer(name="a", start=partial(start, PROXIED, ha_proxy=False)),
    Peer(name="a-haproxy", start=partial(start, BALANCED, ha_proxy=True)),
    Peer(name="a-tuned", start=partial(start, TUNED, ha_proxy=True, tuned=True)),
)
