"""Sessions from memory, whose replies are the same words at an even pace: what `echo` plays the wire for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

import msgspec

_encode = msgspec.json.encode


class Pace(msgspec.Struct, frozen=True):
    tokens: int = 20
    token_s: float = 0.02


class Session:
    """Its events are numbered from 1; the first says that it was opened."""

    __slots__ = ("events", "known", "listeners", "pace", "saying", "shown")

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.events: list[bytes] = []
        self.listeners: list[Callable[[bytes, int], None]] = []
        self.known: dict[str, int] = {}  # the event of each message
        self.saying = ("", 0)  # the turn of the reply under way, and the number of its message
        self.shown = ""
        self.record("session.opened", "", {"agent": "echo"})

    def record(self, type: str, turn: str, data: object) -> None:
        event = {"seq": len(self.events) + 1, "type": type, "turn": turn, "data": data}
        self.events.append(_encode(event))
        self.tell(self.events[-1], len(self.events))

    def tell(self, event: bytes, seq: int) -> None:
        for listener in list(self.listeners):
            listener(event, seq)

    def say(self, id: str, text: str) -> int:
        """The number of the message's event. Answers at once, then a word at a time; a message that comes again
        starts nothing."""
        if id in self.known:
            return self.known[id]
        self.known[id] = len(self.events) + 1
        turn = f"t_{len(self.events)}"
        self.record("message.accepted", turn, {"id": id, "text": text})
        self.record("reply.started", turn, {"model": "echo"})
        self.saying, self.shown = (turn, len(self.events) - 1), ""
        self._word(0, asyncio.get_running_loop().time())
        return self.known[id]

    def _word(self, number: int, began: float) -> None:
        loop = asyncio.get_running_loop()
        if number == self.pace.tokens:
            total_ms = (loop.time() - began) * 1000
            hops = dict.fromkeys(("queued", "retrieval", "prompt", "first_token"), 0.0)
            timing = {**hops, "generation": total_ms, "total": total_ms, "overhead": 0.0}
            (turn, _), self.saying = self.saying, ("", 0)
            return self.record("reply.completed", turn, {"text": self.shown, "timing": timing})
        delta = self.delta(len(self.shown), " word.")
        self.shown += " word."
        self.tell(delta, 0)
        loop.call_at(began + (number + 1) * self.pace.token_s, self._word, number + 1, began)
        return None

    def delta(self, offset: int, text: str) -> bytes:
        turn, seq = self.saying
        data = {"offset": offset, "text": text}
        return _encode({"seq": seq, "type": "reply.delta", "turn": turn, "data": data})


class Echo:
    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.sessions: dict[str, Session] = {}
        self._names = count(1)

    def open(self) -> str:
        name = f"s_{next(self._names)}"
        self.sessions[name] = Session(self.pace)
        return name
