"""Customers who go on talking whatever dies, and note what they did and saw: the history checker's input.

Each has one conversation over a WebSocket. Where the socket breaks it connects again with its place; a
message that nobody has acknowledged is sent again under the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from simulation.observations import (
    TURN_ENDS,
    Acked,
    Connected,
    Fault,
    Observation,
    Received,
    Refused,
    Sent,
    Stuck,
)

CONNECT_TIMEOUT_S = 10.0
AGAIN_AFTER_S = 3.0
PAUSE_S = 0.2
# Where a reply's text begins to be counted.
_BOUNDS = TURN_ENDS | {"reply.started"}


class Log:
    """What all customers did and saw, in the order in which it happened, on this machine's clock."""

    def __init__(self) -> None:
        self.observations: list[Observation] = []

    @property
    def now(self) -> float:
        return time.monotonic()

    def see(self, kind: Callable[..., Observation], **words: Any) -> None:
        self.observations.append(kind(at=self.now, **words))

    def fault(self, what: str) -> None:
        self.see(Fault, what=what)


class Place:
    """How far a customer has read: the last durable event, and characters of the reply under way."""

    def __init__(self) -> None:
        self.after = 0
        self.offset = 0

    def __str__(self) -> str:
        return f"{self.after}:{self.offset}" if self.offset else f"{self.after}"

    def pass_by(self, event: dict[str, Any]) -> None:
        data = event["data"]
        match event["type"]:
            case "reply.delta":
                self.offset = data["offset"] + len(data["text"])
            case "reply.rewound":
                self.offset = data["offset"]
            case type:
                self.after = event["seq"]
                self.offset = 0 if type in _BOUNDS else self.offset


class Customer:
    """`url` is that of the session's socket."""

    def __init__(self, session: str, url: str, log: Log, chance: random.Random, question: str) -> None:
        self.session = session
        self.log = log
        self._url = url
        self._chance = chance
        self._question = question
        self._place = Place()
        self._connected_after = 0
        self._socket: ClientConnection | None = None
        self._news = asyncio.Event()
        self._sent: dict[str, int] = {}  # how often
        self._turns: dict[str, str] = {}  # of the messages that were acknowledged
        self._refused: set[str] = set()
        self._ended: set[str] = set()
        self._stopping = False
        self.waits_for = ""

    def stop(self) -> None:
        """Sends nothing new; what was sent is seen to its end."""
        self._stopping = True
        self._news.set()

    @property
    def replies(self) -> int:
        """How many it has seen to their end."""
        return len(self._ended)

    def see(self, kind: Callable[..., Observation], **words: Any) -> None:
        self.log.see(kind, client=f"customer of {self.session}", session=self.session, **words)

    async def run(self) -> None:
        """Until it was stopped and has seen the end of all that it asked."""
        reading = asyncio.create_task(self._read())
        try:
            await self._talk()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    # -- asking

    async def _talk(self) -> None:
        number = 0
        while not self._stopping:
            number += 1
            way = "interrupt" if self._chance.random() < 0.1 else None
            await self._say(f"m-{number}", way)
            if self._chance.random() < 0.8:
                await self._heard_out()
            await asyncio.sleep(PAUSE_S * self._chance.random())
        await self._heard_out()

    async def _say(self, id: str, way: str | None) -> None:
        """Sends a message, again and again, until it is acknowledged or refused for good."""
        message = {"type": "message", "id": id, "text": self._question}
        text = json.dumps(message | ({"while_talking": way} if way else {}))
        self.waits_for = f"the acknowledgement of {id}"
        while id not in self._turns and id not in self._refused:
            await self._send(id, text)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._until(lambda: id in self._turns or id in self._refused), AGAIN_AFTER_S
                )

    async def _send(self, id: str, text: str) -> None:
        while (socket := self._socket) is None:
            await self._news_come()
        self._sent[id] = self._sent.get(id, 0) + 1
        self.see(Sent, message=id)
        with contextlib.suppress(WebSocketException, OSError):
            await socket.send(text)

    async def _heard_out(self) -> None:
        self.waits_for = "the end of its turns"
        await self._until(lambda: set(self._turns.values()) <= self._ended)
        self.waits_for = ""

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            await self._news_come()

    async def _news_come(self) -> None:
        self._news.clear()
        await self._news.wait()

    # -- reading

    async def _read(self) -> None:
        while True:
            with contextlib.suppress(WebSocketException, OSError, TimeoutError):
                await self._read_once()
            await asyncio.sleep(PAUSE_S * self._chance.random())

    async def _read_once(self) -> None:
        url = f"{self._url}?after={self._place}"
        self._connected_after = self._place.after
        self.see(Connected, after=self._place.after, offset=self._place.offset)
        key = {"Authorization": "Bearer dev"}
        async with connect(
            url, additional_headers=key, open_timeout=CONNECT_TIMEOUT_S, ping_interval=5, proxy=None
        ) as socket:
            self._socket = socket
            self._news.set()
            try:
                async for text in socket:
                    self._take(json.loads(text))
            finally:
                self._socket = None

    def _take(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "error":
            self._take_error(frame)
        elif frame["type"] == "message.accepted" and self._is_echo(frame):
            self._acknowledged(frame)
        else:
            self._take_event(frame)
        self._news.set()

    def _is_echo(self, event: dict[str, Any]) -> bool:
        """A message that is sent again over a later socket than its event is answered out of order."""
        return event["seq"] <= self._connected_after and self._sent.get(event["data"]["id"], 0) > 1

    def _take_event(self, event: dict[str, Any]) -> None:
        data = event["data"]
        self.see(
            Received,
            seq=event["seq"],
            type=event["type"],
            turn=event.get("turn") or "",
            offset=data.get("offset", 0),
            text=data.get("text", ""),
            model=data.get("model", ""),
        )
        self._place.pass_by(event)
        if event["type"] == "message.accepted":
            self._acknowledged(event)
        elif event["type"] in TURN_ENDS:
            self._ended.add(event["turn"])

    def _acknowledged(self, event: dict[str, Any]) -> None:
        id = event["data"]["id"]
        if id not in self._turns:
            self._turns[id] = event["turn"]
            self.see(Acked, message=id, seq=event["seq"], turn=event["turn"])

    def _take_error(self, frame: dict[str, Any]) -> None:
        """What passes is tried again."""
        id, problem = frame.get("id", ""), frame["problem"]
        self.see(Refused, message=id, problem=problem["type"].rpartition("/")[2])
        if problem["status"] < 500 and problem["status"] != 429:
            self._refused.add(id)

    def stuck(self) -> None:
        self.see(Stuck, what=self.waits_for or "nothing that it knows of")
