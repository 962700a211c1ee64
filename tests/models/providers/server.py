"""A provider on a free port of this machine: what all of them have in common.

It answers with a text that follows from the question, a word at a time, in the provider's own protocol, and
misbehaves as it is told.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

Behaviour = Literal[
    "answers",
    "hangs",
    "stalls",
    "garbage",
    "no json",
    "wrong json",
    "cut",
    "unfinished",
    "gives up",
    "withholds",
]
KEY = "sk-local-0123456789abcdef"
WINDOW_TOKENS = 4000
STALLS_AFTER = 8


class Asked:
    """What any protocol asks for."""

    def __init__(
        self,
        *,
        question: str,
        said: str = "",
        tokens_max: int,
        stop: list[str],
        tool: str = "",
        schema: dict[str, Any] | None = None,
        logprobs: int | None = None,
    ) -> None:
        self.question, self.said, self.tokens_max, self.stop = question, said, tokens_max, stop
        self.tool, self.schema, self.logprobs = tool, schema, logprobs


class Said:
    """The answer: tokens, why it ends, and the arguments of the tool that it calls, if it does."""

    def __init__(self, tokens: list[str], reason: str, arguments: str = "") -> None:
        self.tokens, self.reason, self.arguments = tokens, reason, arguments


ARGUMENTS = '{"city": "Zürich", "days": 3}'
REPLY = '{"name": "Zürich", "days": 3}'


def whole(question: str) -> str:
    words = " ".join(f"word{n}" for n in range(40))
    return f"You asked — in Zürich 👍 — about {question[:40]} and I say {words}. That is all."


class Server:
    """One provider. `behaviour` and `status` may be changed between requests; `repeats` is what a model does
    that is asked to go on: nothing, the last words, or all of it."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = "answers"
        self.status, self.headers = 200, dict[str, str]()
        self.repeats: Literal["nothing", "words", "all"] = "nothing"
        self.token_s = 0.0
        self.bodies: list[dict[str, Any]] = []
        self.checks = self.open = 0
        self.closed = asyncio.Event()
        self.closed_at = 0.0
        self.url = ""

    # -- what a protocol fills in

    def routes(self) -> list[Route]:
        raise NotImplementedError

    def key(self, request: Request) -> str:
        raise NotImplementedError

    def asked(self, body: dict[str, Any]) -> Asked:
        raise NotImplementedError

    def events(self, asked: Asked, said: Said) -> AsyncIterator[str]:
        raise NotImplementedError

    def problem(self, status: int, message: str) -> dict[str, Any]:
        raise NotImplementedError

    def gives_up(self) -> str:
        """An event in the middle of a stream that says that there will be no more."""
        raise NotImplementedError

    # -- the rest

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        if (refused := self._refused(request)) is not None:
            return refused
        asked = self.asked(body)
        tokens = len(json.dumps(body)) // 5
        if tokens > WINDOW_TOKENS:
            return self._problem(
                400, f"prompt is too long: {tokens} tokens > {WINDOW_TOKENS} maximum context length"
            )
        return await self._respond(asked)

    async def check(self, request: Request) -> Response:
        self.checks += 1
        return self._refused(request) or JSONResponse(self.listing())

    def listing(self) -> dict[str, Any]:
        return {"object": "list", "data": []}

    def _refused(self, request: Request) -> Response | None:
        if self.status != 200:
            return self._problem(self.status, f"as told, and your key is {KEY}")
        if self.key(request) != KEY:
            return self._problem(401, f"Incorrect API key provided: {self.key(request)}")
        return None

    def _problem(self, status: int, message: str) -> Response:
        return JSONResponse(self.problem(status, message), status, headers=self.headers)

    async def _respond(self, asked: Asked) -> Response:
        match self.behaviour:
            case "hangs":
                return StreamingResponse(self._watched(self._silence()), media_type="text/event-stream")
            case "garbage":
                return PlainTextResponse("<html>" + "\x00\xfe not what you think " * 50, 200)
            case _:
                stream = self._watched(self._misbehaving(asked))
                return StreamingResponse(stream, media_type="text/event-stream")

    async def _silence(self) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    async def _watched(self, events: AsyncIterator[str]) -> AsyncIterator[str]:
        self.open += 1
        try:
            async for event in events:
                yield event
        finally:
            self.open -= 1
            self.closed_at = perf_counter()
            self.closed.set()

    async def _misbehaving(self, asked: Asked) -> AsyncIterator[str]:
        sent = 0
        async for event in self.events(asked, self.said(asked)):
            if sent >= STALLS_AFTER and self.behaviour != "answers":
                match self.behaviour:
                    case "stalls":
                        await asyncio.Event().wait()
                    case "cut":
                        raise ConnectionAbortedError
                    case "unfinished":
                        return
                    case "gives up":
                        yield self.gives_up()
                        return
                    case "no json":
                        yield "event: message_delta\ndata: {not json\n\n"
                    case "wrong json":
                        yield 'event: message_delta\ndata: {"choices": 7, "candidates": 7, "type": "message_delta"}\n\n'
                    case _:
                        pass
            yield event
            sent += 1
            if self.token_s:
                await asyncio.sleep(self.token_s)

    def said(self, asked: Asked) -> Said:
        if asked.tool:
            return Said([], "tools", ARGUMENTS)
        if asked.schema is not None:
            return self._ended(asked, REPLY)
        return self._ended(asked, self._gone_on(asked))

    def _gone_on(self, asked: Asked) -> str:
        text = whole(asked.question)
        if not asked.said:
            return text
        rest = text[len(asked.said) :] if text.startswith(asked.said) else " and so on."
        match self.repeats:
            case "nothing":
                return rest
            case "words":
                return asked.said[asked.said.rfind(" ", 0, max(0, len(asked.said) - 8)) + 1 :] + rest
            case "all":
                return asked.said + rest

    def _ended(self, asked: Asked, text: str) -> Said:
        ends = [at for stop in asked.stop if (at := text.find(stop)) >= 0]
        tokens = [text[: min(ends)] if ends else text]
        tokens = tokens[0].replace(" ", "\0 ").split("\0")
        kept = [token for token in tokens if token][: asked.tokens_max]
        return Said(kept, "stop" if len(kept) == len([t for t in tokens if t]) else "length")


def event(data: dict[str, Any], name: str = "") -> str:
    named = f"event: {name}\n" if name else ""
    return f"{named}data: {json.dumps(data, ensure_ascii=False)}\n\n"


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    """Real HTTP on a free port."""
    app = Starlette(routes=server.routes())
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    running = uvicorn.Server(config)
    running.config.setup_event_loop = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(running.serve())
    while not running.started:
        await asyncio.sleep(0.005)
    server.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        running.should_exit = running.force_exit = True
        await task
