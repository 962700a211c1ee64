"""Many customers at once on a fleet of its own, and whether the fleet has kept its promises to them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import httpx2

from benchmarks.clients import Customer, Log
from benchmarks.fleet import OwnFleet
from flotilla.core.limits import LIMITS
from flotilla.views.events import NOT_FOR_VISITORS
from simulation.history import check
from simulation.observations import TURN_ENDS, Entry, Received, Violation
from simulation.world import told

COLLECTION = "bank"
# A reply of 51 tokens.
DOCUMENTS = [
    {
        "id": "gold",
        "title": "Gold Card",
        "text": "The Gold Card costs 95 dollars a year, and in return it gives three percent cash back on travel "
        "and dining, two visits a year to airport lounges, free transfers abroad, a replacement within three "
        "working days when it is lost, and help by telephone at any hour of the day.",
    }
]
QUESTION = "How much does the Gold Card cost a year?"
PATIENCE_S = 60.0
READ_PATIENCE_S = 30.0


class Broken(AssertionError):
    """The fleet has broken a promise; says which, with all that happened in the conversation."""


class Crowd:
    """Its customers talk from `start` on. `finish` raises `Broken`, and returns what was counted."""

    def __init__(self, fleet: OwnFleet, sessions: Sequence[str], seed: int) -> None:
        self.fleet = fleet
        self.log = Log()
        base = fleet.url.replace("http", "ws", 1)
        self.customers = [
            Customer(
                session,
                f"{base}/v1/sessions/{session}/ws",
                self.log,
                random.Random(f"{seed} {n}"),
                QUESTION,
            )
            for n, session in enumerate(sessions)
        ]
        self._tasks: dict[asyncio.Task[None], Customer] = {}
        self._began = 0.0

    def start(self) -> None:
        self._began = self.log.now
        self._tasks = {asyncio.create_task(customer.run()): customer for customer in self.customers}

    @property
    def replies(self) -> int:
        return sum(customer.replies for customer in self.customers)

    async def until_replies(self, number: int) -> None:
        """Until so many more replies have been seen to their end. Raises `TimeoutError`."""
        wanted = self.replies + number
        async with asyncio.timeout(PATIENCE_S):
            while self.replies < wanted:
                await asyncio.sleep(0.05)

    async def finish(self, patience_s: float = PATIENCE_S) -> list[Violation]:
        """Every broken promise. The customers see what they have asked to its end, if it ends in time."""
        for customer in self.customers:
            customer.stop()
        _, waiting = await asyncio.wait(self._tasks, timeout=patience_s)
        for task in waiting:
            self._tasks[task].stuck()
        await self.aclose()
        return check(self.log.observations, await self.journals())

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- the record

    async def journals(self) -> dict[str, list[Entry]]:
        sessions = [customer.session for customer in self.customers]
        return {session: await asyncio.to_thread(self._journal, session) for session in sessions}

    def _journal(self, session: str) -> list[Entry]:
        entries: list[Entry] = []
        while True:
            page = patiently(self.fleet.events, session, len(entries))
            entries += map(_entry, page)
            if len(page) < LIMITS.page_max:
                return entries

    # -- for who reads a failure

    def story(self, session: str) -> str:
        """All that was seen of one conversation, and every fault, a line each; of text that runs on, one line."""
        lines: list[str] = []
        running = False
        for o in self.log.observations:
            if getattr(o, "session", session) == session:
                delta = isinstance(o, Received) and o.type == "reply.delta"
                line = f"{o.at - self._began:9.3f}  {told(o)}".replace(f" session={session!r}", "")
                lines[-1:] = [lines[-1], line] if lines and not (running and delta) else [line]
                running = delta
        return "\n".join(lines)

    def explained(self, violations: Sequence[Violation]) -> str:
        """The violations, and the story of the first conversation that suffered one."""
        said = [f"{v.at - self._began:.3f} s: {v.rule} in {v.session}: {v.what}" for v in violations]
        sessions = [violation.session for violation in violations if violation.session]
        return "\n".join([*said, *(f"\n{session}:\n{self.story(session)}" for session in sessions[:1])])


def _entry(event: dict[str, Any]) -> Entry:
    type, data = event["type"], event["data"]
    return Entry(
        seq=event["seq"],
        type=type,
        turn=event.get("turn") or "",
        message=data["id"] if type == "message.accepted" else "",
        text=data.get("text", "") if type in TURN_ENDS else "",
        shown=type not in NOT_FOR_VISITORS,
    )


def patiently(call: Any, *args: Any, patience_s: float = READ_PATIENCE_S) -> Any:
    """What `call` returns; again while the fleet can't be reached."""
    until = time.monotonic() + patience_s
    while True:
        try:
            return call(*args)
        except (httpx2.HTTPError, KeyError):
            if time.monotonic() > until:
                raise
        time.sleep(0.2)


async def opened(fleet: OwnFleet, number: int) -> list[str]:
    """So many sessions."""
    return [await asyncio.to_thread(patiently, fleet.session, "bank") for _ in range(number)]


@contextlib.asynccontextmanager
async def talking(fleet: OwnFleet, number: int, seed: int) -> AsyncGenerator[Crowd]:
    """A crowd that has begun to talk. In the end it is heard out, and `Broken` raised if a promise was."""
    crowd = Crowd(fleet, await opened(fleet, number), seed)
    crowd.start()
    try:
        await crowd.until_replies(number // 2)
        yield crowd
        if violations := await crowd.finish():
            raise Broken(crowd.explained(violations))
    finally:
        await crowd.aclose()
