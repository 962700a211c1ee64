"""The small fleet on a real socket: HTTP, SSE and WebSocket by uvicorn, with mischief from a seed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any
from urllib.parse import parse_qs

import uvicorn

from tests.client.conversation import Conversation
from tests.client.visits import Visits

UNKNOWN = {"seq": 1, "type": "weather.changed", "data": {"to": "rain"}}
PROBLEM = {
    "type": "https://flotilla.dev/problems/overloaded",
    "title": "Shedding",
    "detail": "Too much at once.",
}
CONFLICT = {
    "type": "https://flotilla.dev/problems/conflict",
    "title": "Conflict",
    "status": 409,
    "detail": "It is there with another text.",
}

LAST = ("reply.completed", "session.closed")


class Mischief:
    """What goes wrong, each with its probability, by a seed."""

    def __init__(
        self, seed: int = 0, *, shed: float = 0, cut: float = 0, again: float = 0, lose: float = 0
    ) -> None:
        self.random = Random(seed)
        self.shed, self.cut, self.again, self.lose = shed, cut, again, lose
        self.retry_after_s = 0.01
        self.reset: tuple[Any, str] | None = None  # how gRPC's next stream ends, behind its first event
        self._lost = set[int]()

    def happens(self, probability: float) -> bool:
        return self.random.random() < probability

    async def spoilt(self, events: AsyncGenerator[dict[str, Any]]) -> AsyncGenerator[dict[str, Any]]:
        """Events again, types that nobody knows, and events that don't come this time."""
        sent: list[dict[str, Any]] = []
        async for event in events:
            if self._loses(event):
                continue
            yield event
            sent.append(event)
            if self.happens(self.again):
                yield self.random.choice([UNKNOWN, *sent])

    def _loses(self, event: dict[str, Any]) -> bool:
        """Of the record each once at most, and none behind which nothing comes that would betray it."""
        if (
            event["type"] in LAST
            or ("at" in event and event["seq"] in self._lost)
            or not self.happens(self.lose)
        ):
            return False
        self._lost |= {event["seq"]} if "at" in event else set()
        return True


class SmallFleet:
    def __init__(self, mischief: Mischief | None = None, words: int = 12, step_s: float = 0.0) -> None:
        self.mischief = mischief or Mischief()
        self.sessions: dict[str, Conversation] = {}
        self.opened: dict[str, str] = {}  # by Idempotency-Key
        self.calls: list[str] = []
        self.places: list[str] = []  # that were asked for
        self.visits = Visits()
        self.typing = 0
        self.deaf = 0  # so many messages on sockets are not heard
        self.close_codes = [1012, 1013, 1001]
        self._words, self._step_s = words, step_s

    def open(self, key: str = "") -> str:
        name = self.opened.get(key) or f"s_{len(self.sessions) + 1}"
        self.opened |= {key: name} if key else {}
        if name not in self.sessions:
            self.sessions[name] = Conversation(self._words, self._step_s)
        return name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            return await self._socket(scope, receive, send)
        request = await _body(receive)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.calls.append(f"{scope['method']} {scope['path']}")
        if not self.visits.admits(headers.get("authorization", ""), scope["path"]):
            problem = {
                "type": "https://flotilla.dev/problems/unauthenticated",
                "detail": "This key is not known.",
            }
            return await _json(send, {"title": "No valid key", "status": 401, **problem}, 401)
        if self.mischief.happens(self.mischief.shed):
            again = [(b"retry-after", b"1")]
            document = PROBLEM | {"status": 503, "retry_after_s": self.mischief.retry_after_s}
            return await _json(send, document, 503, again)
        return await _unless_gone(self._route(scope, headers, request, send), receive)

    async def _route(self, scope: Any, headers: dict[str, str], request: bytes, send: Any) -> None:
        method, (_, *path) = scope["method"], scope["path"].strip("/").split("/")
        body, query = json.loads(request) if request else {}, parse_qs(scope["query_string"].decode())
        match method, path:
            case "POST", ["sessions"]:
                name = self.open(headers.get("idempotency-key", ""))
                await self._maybe_cut(send)  # it was done, and nobody hears of it
                return await _json(send, {"id": name, "token": self.visits.issue(name), "seq": 1}, 201)
            case "POST", ["sessions", name, "messages"]:
                accepted = self.sessions[name].post(body["id"], body["text"])
                await self._maybe_cut(send)
                turn = self.sessions[name].follow(accepted["seq"] - 1, 0, accepted["turn"])
                if "event-stream" in headers.get("accept", ""):
                    return await self._sse(self.visits.guarded(turn, headers["authorization"]), send)
                if "wait" in query:
                    return await _json(send, [event async for event in turn][-1])
                return await _json(send, {"seq": accepted["seq"], "turn": accepted["turn"]}, 202)
            case "POST", ["sessions", name, "token"]:
                if self.visits.away:
                    self.visits.away -= 1
                    return await _json(send, PROBLEM | {"status": 503, "retry_after_s": 0.01}, 503)
                return await _json(send, {"id": name, "token": self.visits.renew(name)}, 201)
            case "GET", ["sessions", name, "stream"]:
                place = headers.get("last-event-id") or query["after"][0]
                self.places.append(place)
                seq, _, offset = place.partition(":")
                live = self.sessions[name].follow(int(seq), int(offset or 0))
                return await self._sse(self.visits.guarded(live, headers["authorization"]), send)
            case "GET", ["sessions", name, "events"]:
                after = int(query.get("after", ["0"])[0])
                page = self.sessions[name].record[after : after + int(query.get("limit", ["500"])[0])]
                return await _json(send, {"events": page})
            case _:
                problem = {"type": "https://flotilla.dev/problems/not-found", "detail": "There is nothing."}
                return await _json(send, {"title": "Nothing", "status": 404, **problem}, 404)

    async def _maybe_cut(self, send: Any) -> None:
        if self.mischief.happens(self.mischief.cut):
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99")]}
            )
            raise ConnectionAbortedError("as told")

    async def _sse(self, events: AsyncGenerator[dict[str, Any]], send: Any) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        async for event in self.mischief.spoilt(events):
            text = f"id: {event['seq']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
            if self.mischief.happens(self.mischief.cut):
                part = text[: self.mischief.random.randrange(len(text))]
                await send({"type": "http.response.body", "body": part, "more_body": True})
                raise ConnectionAbortedError("as told")
            await send({"type": "http.response.body", "body": text, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _socket(self, scope: Any, receive: Any, send: Any) -> None:
        name = scope["path"].split("/")[3]
        place = parse_qs(scope["query_string"].decode())["after"][0]
        self.places.append(place)
        seq, _, offset = place.partition(":")
        await receive()
        await send({"type": "websocket.accept"})
        shown = dict(scope["headers"]).get(b"authorization", b"").decode()
        if not self.visits.admits(shown, scope["path"]):
            problem = {"type": "https://flotilla.dev/problems/unauthenticated", "title": "No", "status": 401}
            told = {"type": "error", "problem": problem | {"detail": "This key is not known."}}
            await send({"type": "websocket.send", "text": json.dumps(told)})
            return await send({"type": "websocket.close", "code": 4401})
        if self.mischief.happens(self.mischief.shed):
            await send({"type": "websocket.send", "text": json.dumps(self._shedding("error"))})
            return await send({"type": "websocket.close", "code": 1013})
        session = self.sessions[name]
        events = self.mischief.spoilt(session.follow(int(seq), int(offset or 0)))
        out = asyncio.create_task(self._write(events, send))
        back = asyncio.create_task(self._read(session, receive, send))
        over = asyncio.create_task(self.visits.over(shown))
        await asyncio.wait({out, back, over}, return_when=asyncio.FIRST_COMPLETED)
        ended = over.done()
        for task in (out, back, over):
            task.cancel()
        await asyncio.gather(out, back, over, return_exceptions=True)
        if ended:
            return await send({"type": "websocket.close", "code": 4401})
        code = (
            self.mischief.random.choice(self.close_codes)
            if session.record[-1]["type"] != "session.closed"
            else 1000
        )
        with suppress(Exception):
            await send({"type": "websocket.close", "code": code})
        return None

    async def _write(self, events: AsyncGenerator[dict[str, Any]], send: Any) -> None:
        async for event in events:
            if self.mischief.happens(self.mischief.cut):
                return
            await send({"type": "websocket.send", "text": json.dumps(event, ensure_ascii=False)})

    async def _read(self, session: Conversation, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "websocket.receive":
            frame = json.loads(message["text"])
            match frame["type"]:
                case "message" if self.deaf:
                    self.deaf -= 1
                case "message" if frame["id"] == "refused":
                    told = {"type": "error", "id": frame["id"], "problem": CONFLICT}
                    await send({"type": "websocket.send", "text": json.dumps(told)})
                case "message" if self.mischief.happens(self.mischief.shed):
                    told = self._shedding("error") | {"id": frame["id"]}
                    await send({"type": "websocket.send", "text": json.dumps(told)})
                case "message" if self.mischief.happens(self.mischief.lose):
                    return
                case "message":
                    before = session.seq
                    accepted = session.post(frame["id"], frame["text"])
                    if accepted["seq"] <= before:
                        await send({"type": "websocket.send", "text": json.dumps(accepted)})
                case "typing":
                    self.typing += 1
                case other:
                    raise AssertionError(other)

    def _shedding(self, type: str) -> dict[str, Any]:
        problem = PROBLEM | {"status": 503, "retry_after_s": self.mischief.retry_after_s}
        return {"type": type, "problem": problem}


async def _unless_gone(answering: Coroutine[Any, Any, None], receive: Any) -> None:
    """Ends with the client that would read the answer."""
    tasks = asyncio.create_task(answering), asyncio.create_task(receive())
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    answered, _ = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(answered, ConnectionAbortedError):
        raise answered


async def _body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _json(
    send: Any, document: Any, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    kind = [(b"content-type", b"application/json"), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": kind})
    await send({"type": "http.response.body", "body": json.dumps(document, ensure_ascii=False).encode()})


@asynccontextmanager
async def serving(fleet: SmallFleet) -> AsyncIterator[str]:
    """The address of `fleet`, for as long as the context lives."""
    config = uvicorn.Config(
        fleet, port=0, host="127.0.0.1", log_level="critical", lifespan="off", timeout_graceful_shutdown=0
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[method-assign]
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.001)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task
