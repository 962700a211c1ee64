"""Telling: messages that nobody waits for, each at most once, to one actor in their order."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from actors import frames
from actors.ways import NotTaken, Ways
from flotilla.core.errors import FlotillaError, Overloaded
from flotilla.core.ids import ActorId
from flotilla.core.members import Member

TELLS_WAITING_MAX = 10_000
PATIENCE_S = 10.0


class Telling:
    """`lost` counts the messages that could not be delivered; each is logged."""

    def __init__(self, ways: Ways, log: Any = None) -> None:
        self._ways = ways
        self._log = log
        self._on_their_way: set[asyncio.Task[None]] = set()
        self._last: dict[ActorId, asyncio.Task[None]] = {}  # of those that are still on their way
        self.lost = 0

    def tell(self, frame: frames.AskFrame) -> None:
        """At once if the way is known and open. Raises `Overloaded`."""
        if frame.actor in self._last:
            return self._tell_later(frame)
        try:
            owner = self._ways.owner(frame.actor)
            if self._ways.is_here(owner):
                return self._ways.deliver_here(frame, None)
            link = self._ways.links.known(owner.address)
            if link is not None and not link.lost:
                return link.tell("tell", frames.encode(frame))
        except (FlotillaError, NotTaken):
            pass  # the patient way knows what to do, or says what is wrong
        return self._tell_later(frame)

    def _tell_later(self, frame: frames.AskFrame) -> None:
        if len(self._on_their_way) >= TELLS_WAITING_MAX:
            raise Overloaded(f"{len(self._on_their_way)} messages wait to be sent.", retry_after_s=1.0)
        before = self._last.get(frame.actor)
        task = asyncio.get_running_loop().create_task(self._tell(frame, before))
        self._last[frame.actor] = task
        self._on_their_way.add(task)
        task.add_done_callback(lambda _: self._told(frame.actor, task))

    def _told(self, actor: ActorId, task: asyncio.Task[None]) -> None:
        self._on_their_way.discard(task)
        if self._last.get(actor) is task:
            del self._last[actor]

    async def _tell(self, frame: frames.AskFrame, before: asyncio.Task[None] | None) -> None:
        """In its order: behind the one before it to the same actor."""
        until = self._ways.clock.monotonic() + PATIENCE_S
        if before is not None:
            await asyncio.wait([before])

        async def once(hops: int, owner: Member) -> None:
            if self._ways.is_here(owner):
                return self._ways.deliver_here(frame, None)
            body = frames.encode(msgspec.structs.replace(frame, hops=hops))
            return (await self._ways.link_to(owner)).tell("tell", body)

        try:
            await self._ways.patiently(frame.actor, once, until, False)
        except FlotillaError as error:
            self.failed(frame.actor, error)

    def failed(self, actor: ActorId, error: FlotillaError) -> None:
        """A message could not be delivered."""
        self.lost += 1
        if self._log is not None:
            self._log.warning("tell.lost", actor=str(actor), reason=error.detail)
