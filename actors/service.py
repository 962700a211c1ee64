"""A process of the fleet: listens on a link, tells the directory that it lives, does its work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec

from actors.link import Handler, Listener
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError
from flotilla.core.ids import new_id
from flotilla.core.members import Member
from flotilla.core.ports import Directory

BEAT_EVERY_S = 1.0

Housekeeping = Callable[[Member], Coroutine[Any, Any, None]]
"""Runs as long as its process lives."""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What wiring makes of a recipe."""

    role: str
    handler: Handler
    directory: Directory
    clock: Clock
    log: Any
    token: str
    info: dict[str, str] = {}
    housekeeping: Sequence[Housekeeping] = ()
    closers: Sequence[Callable[[], Awaitable[None]]] = ()

    async def run(self, name: str, address: str, up: Callable[[Member], None]) -> None:
        """Serves until cancelled; then leaves the directory and closes what wiring opened."""
        listener = Listener(self.handler, self.token)
        address = await listener.start(address)
        me = Member(role=self.role, name=name, life=new_id("l"), address=address, info=self.info)
        self.log.info("service.up", role=self.role, name=name, address=address)
        up(me)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._beat(me))
                for work in self.housekeeping:
                    tasks.create_task(work(me))
        finally:
            await listener.aclose()
            await self._leave(me)

    async def _beat(self, me: Member) -> None:
        while True:
            try:
                await self.directory.beat(me)
            except FlotillaError as error:
                self.log.warning("beat.missed", reason=error.detail)
            await self.clock.sleep(BEAT_EVERY_S)

    async def _leave(self, me: Member) -> None:
        try:
            await self.directory.leave(me)
        except FlotillaError as error:
            self.log.info("leave.failed", reason=error.detail)
        for close in self.closers:
            await close()
