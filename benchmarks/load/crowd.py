"""The conversations of one worker: opened, connected, brought back when they are lost, and let go."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from typing import Any

import msgspec

from benchmarks.load.calls import Rpc
from benchmarks.load.conversation import SHED_STATUS, Conversation, Door
from benchmarks.load.library_sockets import LibraryWay
from benchmarks.load.notes import Notes
from benchmarks.load.orders import Recruit
from benchmarks.load.schedule import ways
from benchmarks.load.sockets import SocketDoor, Way
from benchmarks.load.streams import Http
from benchmarks.load.watch import Watch

OPENING = 16  # sessions that are opened at once
OPEN_TRIES = 20
CONNECTING_MAX = 256  # connections that are being made at once
AGAIN_AFTER_S = (0.05, 0.25)
REACH_WITHIN_S = 60.0
"""A connection that can't be had for so long is an error, and its conversation stays away."""


class Opened(msgspec.Struct):
    id: str
    seq: int = 0


class Crowd:
    def __init__(self, recruit: Recruit, notes: Notes) -> None:
        self._recruit = recruit
        self._scenario = recruit.scenario
        self.notes = notes
        self.watch = Watch(recruit.scenario.slo.first_ms / 1000)
        self.http = Http(recruit.url, recruit.key)
        self.way = Way(recruit.url, recruit.key)
        self._aside = Way(recruit.aside, recruit.key)
        self._library = LibraryWay(recruit.url, recruit.key)
        self._rpc = Rpc(recruit.rpc, recruit.key)
        self._chance = random.Random(f"{recruit.seed} {recruit.worker}")
        self._tasks: set[asyncio.Task[None]] = set()
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
        """Connections that stand."""
        return sum(1 for c in self.conversations.values() if c.door is not None and c.door.open)

    @property
    def busy(self) -> int:
        return sum(1 for c in self.conversations.values() if c.turn is not None or c.waiting)

    def way_of(self, number: int) -> int:
        return self._ways[number]

    # -- sessions

    async def open_sessions(self) -> None:
        """Raises `ConnectionError` if the fleet does not open them."""
        left = iter(list(self.conversations.values()))

        async def work() -> None:
            for conversation in left:
                opened = await self.open_session()
                conversation.session, conversation.seq = opened.id, opened.seq
                conversation.door = self._door(conversation)

        await asyncio.gather(*(work() for _ in range(OPENING)))

    async def open_session(self) -> Opened:
        said = ""
        for _ in range(OPEN_TRIES):
            answer = await self.http.post("/v1/sessions", {"agent": self._scenario.agent})
            if answer.status < 300:
                return msgspec.json.decode(answer.body, type=Opened)
            said = f"status {answer.status}: {answer.body[:300].decode(errors='replace')}"
            if answer.status not in SHED_STATUS:
                break
            await asyncio.sleep(0.5)
        raise ConnectionError(f"No session could be opened: {said}")

    def _door(self, conversation: Conversation) -> Door:
        recruit = self._recruit
        way = self._aside if recruit.aside and conversation.number >= recruit.aside_from else self.way
        sockets = way.door if recruit.client == "lean" else self._library.door
        made = (sockets, self.http.stream_door, self.http.waiting_door, self._rpc.door)
        return made[self.way_of(conversation.number)](conversation, self._lost)

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
        self._spawn(self._again(conversation))

    async def _again(self, conversation: Conversation) -> None:
        await asyncio.sleep(self._chance.uniform(0, AGAIN_AFTER_S[0]))
        await self._reach(conversation)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the storm

    async def cut(self, sockets: int | None, within_s: float) -> tuple[list[float], int]:
        """Resets so many sockets at once. Milliseconds until each was back and answered, and how many were
        not within the time."""
        standing = [c for c in self.conversations.values() if isinstance(c.door, SocketDoor) and c.door.open]
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
        assert isinstance(door, SocketDoor)
        began = time.monotonic()
        while door.open and time.monotonic() - began < 1.0:  # until the cut is felt
            await asyncio.sleep(0.01)
        while time.monotonic() - began < within_s:
            try:
                if door.open:
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
        for task in self._tasks:
            task.cancel()
        doors = [c.door for c in self.conversations.values() if c.door is not None]
        await asyncio.gather(*(door.close() for door in doors), *self._tasks, return_exceptions=True)
        await self.http.close()
        await self._rpc.close()
