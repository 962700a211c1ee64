"""Conversations over SSE, one live stream each with messages posted beside it, and over HTTP alone.

Both through aiohttp, whose parser is in C: a reader per stream and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp
import msgspec

from benchmarks.load.conversation import Conversation
from benchmarks.load.frames import Problem, decode
from benchmarks.load.notes import Turn
from benchmarks.load.sockets import Lost
from benchmarks.load.tasks import Tasks
from benchmarks.load.texts import TEXTS

TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=None)
AGAIN_AFTER_S = 0.2
TRIES = 25
_problem = msgspec.json.Decoder(Problem).decode


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    retry_after: str | None

    @property
    def retry_after_s(self) -> float | None:
        """None if it says none that can be read."""
        try:
            return None if self.retry_after is None else float(self.retry_after)
        except ValueError:
            return None


class Http:
    """The connections of one process."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self._key = key
        self._session: aiohttp.ClientSession | None = None
        self.tasks = Tasks()

    @property
    def session(self) -> aiohttp.ClientSession:
        """Opened in the loop in which it is first used."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                self.url,
                headers={"Authorization": f"Bearer {self._key}"},
                timeout=TIMEOUT,
                connector=aiohttp.TCPConnector(limit=0),
                read_bufsize=16 * 1024,
            )
        return self._session

    def stream_door(self, conversation: Conversation, lost: Lost) -> StreamDoor:
        return StreamDoor(self, conversation, lost)

    def waiting_door(self, conversation: Conversation, _: Lost) -> WaitingDoor:
        return WaitingDoor(self, conversation)

    async def post(self, path: str, body: dict[str, Any]) -> Answer:
        async with self.session.post(path, json=body) as answer:
            return Answer(answer.status, await answer.read(), answer.headers.get("Retry-After"))

    async def say(self, conversation: Conversation, turn: Turn, more: str = "") -> Answer | None:
        """The answer to its message, which is said again under the same id while connections break; None if it
        can't be said, which the conversation is told."""
        path, body = (
            f"/v1/sessions/{conversation.session}/messages{more}",
            {"id": turn.id, "text": TEXTS[turn.text]},
        )
        said = ""
        for _ in range(TRIES):
            try:
                return await self.post(path, body)
            except (aiohttp.ClientError, OSError) as error:
                said = f"{type(error).__name__}: {error}"
            turn.resent = True
            conversation.notes.counts["resent"] += 1
            await asyncio.sleep(AGAIN_AFTER_S)
        if conversation.turn is turn:
            conversation.failed("unreachable", said)
        return None

    async def close(self) -> None:
        await self.tasks.cancel()
        if self._session is not None:
            await self._session.close()


class StreamDoor:
    def __init__(self, http: Http, conversation: Conversation, lost: Lost) -> None:
        self._http = http
        self._conversation = conversation
        self._lost = lost
        self._answer: aiohttp.ClientResponse | None = None

    @property
    def open(self) -> bool:
        return self._answer is not None

    async def connect(self) -> None:
        """Raises `ConnectionError`."""
        path = f"/v1/sessions/{self._conversation.session}/stream?after={self._conversation.place}"
        try:
            answer = await self._http.session.get(path, headers={"Accept": "text/event-stream"})
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionError(f"{type(error).__name__}: {error}"[:200]) from error
        if answer.status != 200:
            answer.close()
            raise ConnectionError(f"status {answer.status}")
        self._answer = answer
        self._http.tasks.start(self._read(answer))
        self._conversation.connected()

    async def _read(self, answer: aiohttp.ClientResponse) -> None:
        take = self._conversation.take
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async for line in answer.content:
                if line.startswith(b"data: "):
                    take(decode(line[6:]))
        answer.close()
        if self._answer is answer:
            self._answer = None
            self._lost(self._conversation, 0)

    def post(self, turn: Turn) -> None:
        self._http.tasks.start(self._post(turn))

    async def _post(self, turn: Turn) -> None:
        answer = await self._http.say(self._conversation, turn)
        if answer is not None and answer.status >= 400:
            refuse(self._conversation, turn, answer)

    def cut(self) -> bool:
        if self._answer is None:
            return False
        self._answer.close()
        return True

    async def close(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()


class WaitingDoor:
    """No stream: each message waits for its finished reply."""

    def __init__(self, http: Http, conversation: Conversation) -> None:
        self._http = http
        self._conversation = conversation
        self.open = False

    async def connect(self) -> None:
        self.open = True
        self._conversation.connected()

    def post(self, turn: Turn) -> None:
        self._http.tasks.start(self._post(turn))

    async def _post(self, turn: Turn) -> None:
        answer = await self._http.say(self._conversation, turn, "?wait=true")
        if answer is None:
            return
        if answer.status >= 400:
            refuse(self._conversation, turn, answer)
        elif self._conversation.turn is turn:
            self._conversation.answered(decode(answer.body))

    def cut(self) -> bool:
        return False

    async def close(self) -> None:
        self.open = False


def refuse(conversation: Conversation, turn: Turn, answer: Answer) -> None:
    """Tells a conversation what became of its message."""
    if conversation.turn is not turn:
        return
    try:
        detail = _problem(answer.body).detail
    except msgspec.DecodeError:
        detail = answer.body[:100].decode(errors="replace")
    conversation.refused(answer.status, detail, answer.retry_after_s)
