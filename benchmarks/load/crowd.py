"""The conversations of one worker: opened, connected, brought back when they are lost, and let go."""

from __future__ import annotations

import asyncio
import random
import time

from benchmarks.load import library
from benchmarks.load.conversation import Conversation
from benchmarks.load.lean import Lean
from benchmarks.load.library import Library, TalkDoor
from benchmarks.load.notes import Notes
from benchmarks.load.orders import Recruit
from benchmarks.load.schedule import ways
from benchmarks.load.sockets import SocketDoor, Way
from benchmarks.load.tasks import Tasks
from benchmarks.load.watch import Watch
from flotilla.client import Session

OPENING = 16  # sessions that are opened at once
CONNECTING_MAX = 256  # connections that are being made at once
AGAIN_AFTER_S = (0.05, 0.25)
REACH_WITHIN_S = 60.0
"""A connection that can't be had for so long is an error, and its conversation stays away."""


class Crowd:
    def __init__(self, recruit: Recruit, notes: Notes) -> None:
        self._recruit = recruit
        self._scenario = recruit.scenario
        self.notes = notes
        self.watch = Watch(recruit.scenario.slo.first_ms / 1000)
        self.way = Way(recruit.url, recruit.key)
        self._client = library.client(recruit, recruit.url, notes)
        lean = self._scenario.client == "lean"
        self._doors = Lean(recruit) if lean else Library(recruit, notes, self._client)
        self._chance = random.Random(f"{recruit.seed} {recruit.worker}")
        self._tasks = Tasks()
        self._ending = False
        self.conversations = self._made()
        self._connecting = asyncio.Semaphore(CONNECTING_MAX)

    def _made(self) -> dict[int, Conversation]:
        """By number. Those whose text is checked word for word are chosen by the seed, too."""
        recruit = self._recruit
        self._ways = ways(self._scenario, recruit.seed)
        mine = range(recruit.worker, self._scenario.conversations, recruit.workers)
        checked = random.Random(f"{recruit.seed} checked")
        share = [checked.random() < self._scenario.checked for _ in range(self._scenario.conversations)]
        return {number: Conversation(number, self.notes, self.watch, checks=share[number]) for number in mine}

    @property
    def open(self) -> int:
        """Connections that stand, or that the library is bringing back."""
        return sum(1 for c in self.conversations.values() if c.door is not None and c.door.open)

    @property
    def busy(self) -> int:
        return sum(1 for c in self.conversations.values() if c.turn is not None or c.waiting)

    def way_of(self, number: int) -> int:
        return self._ways[number]

    # -- sessions

    async def open_sessions(self) -> None:
        """Raises what the library raises if the fleet does not open them; at once if there is none."""
        await self._client.ready()
        left = iter(list(self.conversations.values()))

        async def work() -> None:
            for conversation in left:
                opened = await self.open_session()
                conversation.session, conversation.seq = opened.id, opened.seq
                way = self.way_of(conversation.number)
                conversation.door = self._doors.door(way, conversation, self._lost)

        await asyncio.gather(*(work() for _ in range(OPENING)))

    async def open_session(self) -> Session:
        """By the library, whoever plays: it is patient, and opens one however often it has to ask."""
        return await self._client.sessions.open(self._scenario.agent)

    # -- connections

    async def connect(self, per_s: float) -> None:
        """All, at an even pace."""
        began, made = time.monotonic(), list(self.conversations.values())
        tasks: list[asyncio.Task[bool]] = []
        for n, conversation in enumerate(made):
            if (early := began + n / per_s - time.monotonic()) > 0:
                await asyncio.sleep(early)
            tasks.append(asyncio.create_task(self._reach(conversation)))
        await asyncio.gather(*tasks)

    async def _reach(self, conversation: Conversation) -> bool:
        """Tries until it is connected; False if that is given up."""
        door, said = conversation.door, ""
        assert door is not None
        until = time.monotonic() + REACH_WITHIN_S
        while time.monotonic() < until:
            try:
                async with self._connecting:
                    await door.connect()
                return True
            except ConnectionError as error:
                said = str(error)
                self.notes.counts["connect again"] += 1
            if self._ending:
                return False
            await asyncio.sleep(self._chance.uniform(*AGAIN_AFTER_S))
        self.notes.error("unreachable", f"{conversation.session}: {said}")
        return False

    def _lost(self, conversation: Conversation, code: int) -> None:
        """A connection has ended; the customer comes back with the place that it has read to."""
        if self._ending:
            return
        self.notes.counts[f"closed {code}" if code else "closed without a code"] += 1
        self._tasks.start(self._again(conversation))

    async def _again(self, conversation: Conversation) -> None:
        await asyncio.sleep(self._chance.uniform(0, AGAIN_AFTER_S[0]))
        await self._reach(conversation)

    # -- the storm

    async def cut(self, sockets: int | None, within_s: float) -> tuple[list[float], int]:
        """Resets so many sockets at once. Milliseconds until each was back and answered, and how many were
        not within the time."""
        everyone = self.conversations.values()
        standing = [c for c in everyone if isinstance(c.door, SocketDoor | TalkDoor) and c.door.stands]
        chosen = standing if sockets is None else self._chance.sample(standing, min(sockets, len(standing)))
        self.notes.mark("storm", f"{len(chosen)} sockets cut")
        tasks = [asyncio.create_task(self._back(c, within_s)) for c in chosen]
        for conversation in chosen:
            assert conversation.door is not None
            conversation.door.cut()
        back = await asyncio.gather(*tasks)
        return [ms for ms in back if ms is not None], sum(ms is None for ms in back)

    async def _back(self, conversation: Conversation, within_s: float) -> float | None:
        door = conversation.door
        assert isinstance(door, SocketDoor | TalkDoor)
        began = time.monotonic()
        while door.stands and time.monotonic() - began < 1.0:  # until the cut is felt
            await asyncio.sleep(0.01)
        while time.monotonic() - began < within_s:
            try:
                if door.stands:
                    async with asyncio.timeout(within_s):
                        await door.answers()
                    return (time.monotonic() - began) * 1000
            except (ConnectionError, TimeoutError):
                pass
            await asyncio.sleep(0.02)
        return None

    # -- the end

    async def drain(self, seconds: float) -> None:
        """Until no reply runs, for so long at most; then what runs is given up."""
        until = time.monotonic() + seconds
        while self.busy and time.monotonic() < until:
            await asyncio.sleep(0.05)
        self._ending = True
        for conversation in self.conversations.values():
            conversation.give_up()

    async def close(self) -> None:
        self._ending = True
        await self._tasks.cancel()
        doors = [c.door for c in self.conversations.values() if c.door is not None]
        await asyncio.gather(*(door.close() for door in doors), return_exceptions=True)
        await self._doors.close()
        await self._client.aclose()
