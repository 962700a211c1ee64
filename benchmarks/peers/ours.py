"""Our own fleet, as `flotilla up` starts it. Two of the ways to it are durable: a session's WebSocket, its natural
protocol, and the same session over HTTP with Server-Sent Events, as most of the others are asked. The third
keeps no record, as they don't: the OpenAI endpoint, gateway to model and back.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import aiohttp
import msgspec
import psutil

from benchmarks.fleet import OwnFleet
from benchmarks.peers.client import NOTHING, Broken, Busy, Read, Said, Socket, Streamed, check, data_of
from benchmarks.peers.script import QUESTION, TEXT
from benchmarks.peers.servers import Peer, Server, Way
from flotilla.core.ids import new_id

AGENT = "chat"
"""It knows nothing, so it searches nothing."""
KEY = {"Authorization": "Bearer dev"}
UP_TIMEOUT_S = 60.0
PACES_S = {"fast": 0.0, "paced": 0.02}


def model_of(pace_s: float) -> str:
    """The model that has this pace. Raises `StopIteration` if none has."""
    return next(name for name, pace in PACES_S.items() if pace == pace_s)


@contextmanager
def start() -> Generator[Server]:
    fleet = OwnFleet()
    try:
        fleet.up()
        for name, pace_s in PACES_S.items():
            _serve(fleet, name, pace_s)
        ways = [
            Way(name="flotilla, WebSocket", open=partial(_socket, fleet), durable=True, keeps=True),
            Way(name="flotilla, SSE", open=partial(_turns, fleet), durable=True, keeps=True),
            Way(name="flotilla, OpenAI endpoint", open=partial(_completions, fleet)),
        ]
        yield Server(ways=ways, processes=partial(_processes, fleet))
    finally:
        fleet.down()


def _serve(fleet: OwnFleet, name: str, pace_s: float) -> None:
    """A model that says what everybody's model says."""
    script = {"mode": "replies", "replies": [TEXT], "first_token_s": 0.0, "token_s": pace_s}
    version = {"name": "1", "engine": "scripted", "settings": script}
    fleet.http.post(f"/v1/models/{name}/versions", json=version).raise_for_status()
    fleet.http.post(f"/v1/models/{name}/serve", json={"version": "1", "least": 1}).raise_for_status()
    until = time.monotonic() + UP_TIMEOUT_S
    while not fleet.http.get(f"/v1/models/{name}").json()["replicas"]:
        if time.monotonic() > until:
            raise RuntimeError(f"No replica of {name} is up.\n{fleet.logs()}")
        time.sleep(0.5)


def _processes(fleet: OwnFleet) -> list[psutil.Process]:
    """Of Ray, and of both stores."""
    found = list(fleet.local.processes())
    for pid in fleet.local.servers().values():
        server = psutil.Process(pid)
        found += [server, *server.children(recursive=True)]
    return list({process.pid: process for process in found}.values())


# -- the ways to it


async def _session(fleet: OwnFleet, http: aiohttp.ClientSession, pace_s: float) -> str:
    body = {"agent": AGENT, "model": model_of(pace_s)}
    async with http.post(f"{fleet.url}/v1/sessions", json=body, headers=KEY) as answer:
        await check(answer)
        return (await answer.json())["id"]


async def _socket(fleet: OwnFleet, http: aiohttp.ClientSession, pace_s: float) -> Socket:
    session = await _session(fleet, http, pace_s)
    url = f"{fleet.url.replace('http', 'ws', 1)}/v1/sessions/{session}/ws"
    socket = await http.ws_connect(url, headers=KEY)
    return Socket(socket, lambda: {"type": "message"} | _message(), read_event)


async def _turns(fleet: OwnFleet, http: aiohttp.ClientSession, pace_s: float) -> Streamed:
    session = await _session(fleet, http, pace_s)
    return Streamed(http, f"{fleet.url}/v1/sessions/{session}/messages", _message, _data(read_event), **KEY)


async def _completions(fleet: OwnFleet, http: aiohttp.ClientSession, pace_s: float) -> Streamed:
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": model_of(pace_s), "messages": messages, "stream": True}
    return Streamed(http, f"{fleet.url}/openai/v1/chat/completions", body, _data(read_chunk), **KEY)


def _message() -> dict[str, Any]:
    return {"id": new_id("m"), "text": QUESTION}


# -- what comes back


class _Timing(msgspec.Struct, frozen=True):
    first_token: float = 0.0


class _Told(msgspec.Struct, frozen=True):
    text: str = ""
    timing: _Timing = _Timing()


class _Problem(msgspec.Struct, frozen=True):
    retry_after_s: float = 0.0


class _Event(msgspec.Struct, frozen=True):
    type: str
    data: _Told = _Told()
    problem: _Problem = _Problem()


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()


class _Chunk(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...] = ()


_events, _chunks = msgspec.json.Decoder(_Event), msgspec.json.Decoder(_Chunk)


def read_event(frame: bytes) -> Said:
    """A delta has text; the end has all of it, for those who came late, and what the engine took. Raises `Busy`
    for a message that was turned away for now, and `Broken` for a reply that failed."""
    event = _events.decode(frame)
    match event.type:
        case "reply.delta":
            return Said(text=event.data.text)
        case "reply.completed":
            told = event.data
            return Said(text=told.text, whole=True, engine_ms=told.timing.first_token, ended=True)
        case "error" if event.problem.retry_after_s:
            raise Busy(event.problem.retry_after_s)
        case "reply.failed" | "reply.rewound" | "error":
            raise Broken(frame.decode())
        case _:
            return NOTHING


def read_chunk(data: bytes) -> Said:
    """Of the OpenAI endpoint."""
    if data == b"[DONE]":
        return NOTHING
    return Said(text="".join(choice.delta.content or "" for choice in _chunks.decode(data).choices))


def _data(read: Read) -> Read:
    """The same of a Server-Sent Event; comments say nothing."""

    def read_data(event: bytes) -> Said:
        data = data_of(event)
        return read(data) if data else NOTHING

    return read_data


PEER = Peer(name="flotilla", start=start)
