"""Clients of a fleet's models, and their stopwatch: the OpenAI endpoint, and turns of durable sessions.

They read no more of a stream than they have to, so that what is measured is the server.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.solo import Asked, Reply

KEY = "dev"

Heard = Callable[[int], None]
"""So many events have come: about as many tokens."""


class Broken(Exception):
    """A reply that failed (`text` is empty) or was cut."""

    def __init__(self, detail: str, text: str = "") -> None:
        super().__init__(detail)
        self.text = text


class Answer(msgspec.Struct, frozen=True):
    """A reply, the version that made it by its own word, and its tokens with their logprobs, if asked for."""

    reply: Reply
    version: str
    logprobs: list[tuple[str, float]] = []


@asynccontextmanager
async def openai(url: str, key: str = KEY) -> AsyncGenerator[OpenAI]:
    """`url` is that of the server's root."""
    headers = {"Authorization": f"Bearer {key}"}
    timeout = aiohttp.ClientTimeout(total=300)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as http:
        yield OpenAI(http, url)


class OpenAI:
    def __init__(
        self, http: aiohttp.ClientSession, url: str, path: str = "/openai/v1/chat/completions"
    ) -> None:
        self.http = http
        self._url = url + path

    async def ask(
        self, asked: Asked, model: str, *, conversation: str = "", heard: Heard | None = None, **more: Any
    ) -> Answer:
        """`heard` is told of everything that comes; `more` goes into the body. Raises `Broken`."""
        body = {
            "model": model,
            "messages": asked.messages,
            "max_tokens": asked.tokens_max,
            "temperature": 0,
            "stop": list(asked.stop) or None,
            "stream": True,
            "stream_options": {"include_usage": True},
            **more,
        }
        headers = {"X-Flotilla-Conversation": conversation} if conversation else None
        began = time.perf_counter()
        async with self.http.post(self._url, json=body, headers=headers) as answer:
            if answer.status != 200:
                raise Broken(f"{answer.status}: {await answer.text()}")
            return await _read(answer, began, heard)


async def _read(answer: aiohttp.ClientResponse, began: float, heard: Heard | None) -> Answer:
    """Decoded when it is whole; until then it is only looked whether there is a word in it."""
    content, first = bytearray(), 0.0
    try:
        async for some in answer.content.iter_any():
            content += some
            if heard:
                heard(some.count(b"data: "))
            if not first and any(_words(event) for event in _events(content)):
                first = time.perf_counter() - began
    except aiohttp.ClientError as error:
        raise Broken(f"{type(error).__name__}: {error}", "cut") from error
    total = time.perf_counter() - began
    events = list(_events(content))
    text = "".join(map(_words, events))
    broken = next((event["error"] for event in events if "error" in event), None)
    if broken or not content.rstrip().endswith(b"[DONE]"):
        raise Broken(f"It ended with {broken or content[-80:]}", text or "cut")
    tokens = events[-1]["usage"]["completion_tokens"]
    reply = Reply(first or total, total, tokens, text)
    return Answer(reply, events[-1]["model"], [pair for event in events for pair in _logprobs(event)])


def _events(content: bytes | bytearray) -> list[dict[str, Any]]:
    """Those that are whole."""
    *blocks, _ = bytes(content).split(b"\n\n")
    said = [block[6:] for block in blocks if block.startswith(b"data: ")]
    return [json.loads(data) for data in said if data != b"[DONE]"]


def _words(event: dict[str, Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event.get("choices") or ())


def _logprobs(event: dict[str, Any]) -> list[tuple[str, float]]:
    found = [choice.get("logprobs") or {} for choice in event.get("choices") or ()]
    return [(token["token"], token["logprob"]) for each in found for token in each.get("content") or ()]


class Sessions:
    """Conversations that are open before they are needed, each with its socket."""

    def __init__(self, http: aiohttp.ClientSession, url: str, agent: str, model: str) -> None:
        self._http = http
        self._url = url
        self._body = {"agent": agent, "model": model}

    async def open(self, number: int) -> list[ClientConnection]:
        return list(await asyncio.gather(*(self._open() for _ in range(number))))

    async def _open(self) -> ClientConnection:
        async with self._http.post(f"{self._url}/v1/sessions", json=self._body) as answer:
            session = (await answer.json())["id"]
        url = f"{self._url.replace('http', 'ws', 1)}/v1/sessions/{session}/ws?after=1"
        return await connect(url, additional_headers={"Authorization": f"Bearer {KEY}"}, max_queue=None)


async def turn(socket: ClientConnection, question: str, id: str = "m-1") -> tuple[Reply, dict[str, float]]:
    """The reply, and what the fleet says of its time (ms by hop). Raises `Broken`."""
    began, first = time.perf_counter(), 0.0
    await socket.send(json.dumps({"type": "message", "id": id, "text": question}))
    async for frame in socket:
        text = str(frame)
        if not first and '"reply.delta"' in text[:400]:
            first = time.perf_counter() - began
        elif '"reply.completed"' in text[:400]:
            total, data = time.perf_counter() - began, json.loads(text)["data"]
            reply = Reply(first or total, total, data["usage"]["completion_tokens"], data["text"])
            return reply, data["timing"]
    raise Broken("The socket closed before the reply was complete.", "cut")
