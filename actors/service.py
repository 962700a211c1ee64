"""A process of the fleet: listens on a link, tells the directory that it lives, does its work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec

from actors.lease import Lease
from actors.listener import Feed, Handler, Listener
from actors.reply import Asked
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError
from flotilla.core.ids import new_id
from flotilla.core.members import Member, MemberState
from flotilla.core.ports import Directory

BEAT_EVERY_S = 1.0

Housekeeping = Callable[[Member], Coroutine[Any, Any, None]]
"""Runs as long as its process lives."""

Info = dict[str, str] | Callable[[], dict[str, str]]
"""What others should know of a process; a callable is asked at each beat."""

Report = Callable[[], tuple[MemberState, dict[str, float]]]
"""What a process says of itself with each beat: its state, and its load by name."""


class Ended(Exception):
    """Raised by housekeeping: this process has done its work, and nobody is to start it again."""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What wiring makes of a recipe."""

    role: str
    handler: Handler
    directory: Directory
    clock: Clock
    log: Any
    token: str
    asked: Asked | None = None
    feeds: dict[str, Feed] = {}
    info: Info = {}
    capacity: float = 1.0
    report: Report = lambda: ("up", {})
    lease: Lease = msgspec.field(default_factory=Lease)
    housekeeping: Sequence[Housekeeping] = ()
    closers: Sequence[Callable[[], Awaitable[None]]] = ()

    async def run(self, name: str, address: str, up: Callable[[Member], None]) -> None:
        """Serves until cancelled, or until its housekeeping raises: returns for `Ended`, raises anything
        else. Before that it leaves the directory and closes what wiring opened."""
        listener = Listener(self.handler, self.token, asked=self.asked, feeds=self.feeds)
        address = await listener.start(address)
        me = Member(
            role=self.role,
            name=name,
            life=new_id("l"),
            address=address,
            capacity=self.capacity,
            info=self._info(),
        )
        self.log.info("service.up", role=self.role, name=name, address=address)
        up(me)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._beat(me))
                for work in self.housekeeping:
                    tasks.create_task(work(me))
        except* Ended as ended:
            self.log.info("service.ended", role=self.role, name=name, reason=str(ended.exceptions[0]))
        finally:
            await listener.aclose()
            for close in self.closers:
                await close()

    async def _beat(self, me: Member) -> None:
        """On the process's own loop: one that hangs stops beating. Leaves the directory when cancelled."""
        try:
            while True:
                state, load = self.report()
                me = msgspec.structs.replace(me, state=state, load=load, info=self._info())
                await self._say(me)
                await self.clock.sleep(BEAT_EVERY_S)
        finally:
            await self._leave(me)

    def _info(self) -> dict[str, str]:
        return self.info if isinstance(self.info, dict) else self.info()

    async def _say(self, me: Member) -> None:
        sent_at = self.clock.monotonic()
        try:
            await self.directory.beat(me)
            self.lease.renew(sent_at)
        except FlotillaError as error:
            self.log.warning("beat.missed", reason=error.detail)

    async def _leave(self, me: Member) -> None:
        try:
            await self.directory.leave(me)
        except FlotillaError as error:
            self.log.info("leave.failed", reason=error.detail)
