"""A fleet that fits in a test: sessions in memory, told as PROTOCOL says, with mischief from a seed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from random import Random
from typing import Any

AT = "2026-11-22T09:00:00.000Z"
BOUNDS = ("reply.started", "reply.completed", "reply.interrupted", "reply.failed")
WORDS = (
    "the",
    "Gold",
    "Card",
    "costs",
    "95",
    "dollars",
    "—",
    "naïve",
    "日本",
    "holders",
    "🙂",
    "lounges",
    "twice",
)


class Conversation:
    """One session. Replies are of `words` words, one at each turn of the loop."""

    def __init__(self, words: int = 12, step_s: float = 0.0) -> None:
        self.record: list[dict[str, Any]] = []
        self.posts = 0  # how often a message came in, however often it had been there before
        self.text = ""
        self._under_way: tuple[int, str] | None = None  # the seq of the question, and the turn
        self._words, self._step_s = words, step_s
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self.add("session.opened", "", {"agent": "bank", "channel": "api"})

    @property
    def seq(self) -> int:
        return len(self.record)

    @property
    def messages(self) -> list[str]:
        return [event["data"]["id"] for event in self.record if event["type"] == "message.accepted"]

    def add(self, type: str, turn: str, data: dict[str, Any]) -> dict[str, Any]:
        event = {"seq": self.seq + 1, "type": type, "at": AT, "data": data} | ({"turn": turn} if turn else {})
        self.record.append(event)
        self._notify()
        return event

    def post(self, id: str, text: str) -> dict[str, Any]:
        """The `message.accepted`: that of before, if the id has been there."""
        self.posts += 1
        for event in self.record:
            if event["type"] == "message.accepted" and event["data"]["id"] == id:
                return event
        accepted = self.add("message.accepted", f"t_{id}", {"id": id, "text": text})
        task = asyncio.create_task(self._reply(accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return accepted

    async def _reply(self, accepted: dict[str, Any]) -> None:
        async with self._turn:
            turn = accepted["turn"]
            self.add("reply.started", turn, {"model": "m@1", "passages": [], "similarity": 0.9})
            self._under_way, self.text = (accepted["seq"], turn), ""
            for word in self._reply_words(accepted["data"]["id"]):
                await asyncio.sleep(self._step_s)
                self.text += word + " "
                self._notify()
            self._under_way = None
            self.add(
                "reply.completed",
                turn,
                {"text": self.text, "model": "m@1", "citations": [], "usage": {}, "timing": {"total": 5.0}},
            )
            self.text = ""

    def _reply_words(self, id: str) -> list[str]:
        random = Random(id)
        return [random.choice(WORDS) for _ in range(self._words)]

    def reply_to(self, id: str) -> str:
        """What the reply to the message `id` is, or will be."""
        return "".join(word + " " for word in self._reply_words(id))

    def crash(self, back: int) -> None:
        """The text that was said loses its last characters, and goes on otherwise."""
        self.text = self.text[: max(0, len(self.text) - back)]
        self._notify()

    def close(self) -> None:
        self.add("session.closed", "", {})

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, after: int, offset: int, until_turn: str = "") -> AsyncGenerator[dict[str, Any]]:
        """As the fleet does it: what is recorded behind `after`, and the text of a reply under way."""
        shown = offset
        while True:
            changed = self._changed
            for event in self.record[after:]:
                after = event["seq"]
                shown = 0 if event["type"] in BOUNDS else shown
                if not until_turn or event.get("turn") == until_turn:
                    yield event
                if event["type"] == "session.closed" or (until_turn and _ends(event, until_turn)):
                    return
            if (
                self._under_way
                and self._under_way[0] <= after
                and (not until_turn or self._under_way[1] == until_turn)
            ):
                seq, turn = self._under_way
                if len(self.text) < shown:
                    shown = len(self.text)
                    yield {"seq": seq, "type": "reply.rewound", "turn": turn, "data": {"offset": shown}}
                if len(self.text) > shown:
                    data = {"offset": shown, "text": self.text[shown:]}
                    shown = len(self.text)
                    yield {"seq": seq, "type": "reply.delta", "turn": turn, "data": data}
            await changed.wait()


def _ends(event: dict[str, Any], turn: str) -> bool:
    return event.get("turn") == turn and event["type"] in BOUNDS[1:]
