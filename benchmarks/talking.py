"""Customers who ask one thing after the other while something else goes on, and write down what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import msgspec

from benchmarks.asking import Answer, Broken, OpenAI, openai
from benchmarks.solo import Asked


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One reply: when it was asked for and over (`time.monotonic`), of which of the questions; `problem` is
    why it failed (before a word) or was cut (after one)."""

    at: float
    until: float
    question: int
    answer: Answer | None = None
    problem: str = ""
    cut: bool = False


class Talk:
    """What all of them have heard so far."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        self.stopping = asyncio.Event()
        self._more = asyncio.Condition()

    def between(self, begin: float, end: float) -> list[Said]:
        """Those that were asked for then."""
        return [said for said in self.said if begin <= said.at < end]

    async def hear(self, said: Said) -> None:
        async with self._more:
            self.said.append(said)
            self._more.notify_all()

    async def until_more(self, replies: int, timeout_s: float = 120) -> None:
        """Until so many more replies are over."""
        wanted = len(self.said) + replies
        async with asyncio.timeout(timeout_s), self._more:
            await self._more.wait_for(lambda: len(self.said) >= wanted)


@asynccontextmanager
async def talking(
    url: str, model: str, questions: Sequence[Asked], customers: int, **more: Any
) -> AsyncGenerator[Talk]:
    """Each is one conversation to the canary. They end what they have begun. `more` goes into each request."""
    talk = Talk()
    async with openai(url) as client, asyncio.TaskGroup() as group:
        for number in range(customers):
            group.create_task(_Customer(client, model, number, more).run(questions, talk))
        try:
            yield talk
        finally:
            talk.stopping.set()


class _Customer:
    def __init__(self, client: OpenAI, model: str, number: int, more: dict[str, Any]) -> None:
        self._client = client
        self._model = model
        self._number = number
        self._more = more

    async def run(self, questions: Sequence[Asked], talk: Talk) -> None:
        """Each begins with another question."""
        for at in count(self._number):
            if talk.stopping.is_set():
                return
            question = at % len(questions)
            await talk.hear(await self._ask(questions[question], question))

    async def _ask(self, asked: Asked, question: int) -> Said:
        at, name = time.monotonic(), f"customer-{self._number}"
        try:
            answer = await self._client.ask(asked, self._model, conversation=name, **self._more)
        except Broken as broken:
            cut = bool(broken.text)
            return Said(at=at, until=time.monotonic(), question=question, problem=str(broken), cut=cut)
        return Said(at=at, until=time.monotonic(), question=question, answer=answer)
