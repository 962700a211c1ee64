"""The controller: as many hosts as the load asks for, within bounds; the dead replaced, the leaving emptied.

It holds nothing that matters. What it decides rests on the directory and on the names that the scheduler
knows (`flotilla/core/policy/scaling.py`); all it does can be done twice. So it may die at any moment, and
two at once do no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Protocol

import msgspec

from actors import frames, placement
from actors.link import Links
from actors.looking import keep_looking
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError, NotFound, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.members import Member
from flotilla.core.policy.scaling import Bounds, History, Plan, plan
from flotilla.core.ports import Directory, Pins

LOOK_EVERY_S = 1.0
# How long a host may take to let go of its actors; then it is ended, and they are recovered elsewhere.
DRAIN_DEADLINE_S = 120.0
DRAIN_LOOK_EVERY_S = 0.25
# After it was told to drain: a beat and a look at the roster, and everybody sends elsewhere.
DRAIN_SETTLES_S = 2.5
ASK_TIMEOUT_S = 2.0


class Processes(Protocol):
    """The processes of the hosts, as whoever schedules them sees them."""

    async def names(self) -> list[str]:
        """Those that run, that are being started, or that are started again after they died."""
        ...

    async def start(self, name: str) -> None:
        """One that is there already is left alone."""
        ...

    async def stop(self, name: str) -> None:
        """Ends it for good; nothing if there is none."""
        ...


class MoveFrame(msgspec.Struct, frozen=True, array_like=True):
    actor: ActorId
    host: str


class Controller:
    def __init__(
        self,
        *,
        directory: Directory,
        pins: Pins,
        processes: Processes,
        links: Links,
        clock: Clock,
        log: Any,
        bounds: Bounds,
    ) -> None:
        self._directory = directory
        self._pins = pins
        self._processes = processes
        self._links = links
        self._clock = clock
        self._log = log
        self._bounds = bounds
        self._drains: dict[str, asyncio.Task[None]] = {}
        self.history = History()

    def __repr__(self) -> str:
        return (
            f"<Controller: {len(self.history.up)} of {self.history.wanted} hosts, {len(self._drains)} drain>"
        )

    # -- answering

    async def answer(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        """The handler of its listener."""
        match method:
            case "ping":
                yield b""
            case "status":
                yield frames.encode({"bounds": self._bounds, "history": self.history})
            case "move":
                frame = msgspec.msgpack.decode(body, type=MoveFrame)
                await self.move(frame.actor, frame.host)
                yield b""
            case "unpin":
                await self._pins.unpin(frames.decode_actor(body))
                yield b""
            case "drain":
                self._begin_drain(msgspec.msgpack.decode(body, type=str))
                yield b""
            case _:
                raise NotFound(f"A controller has no method {method!r}.")

    # -- how many

    async def run(self) -> None:
        """Looks once a second, for as long as its process lives."""
        try:
            await keep_looking(self.look, LOOK_EVERY_S, self._clock, self._blind)
        finally:
            await self.aclose()

    def _blind(self, error: FlotillaError) -> None:
        """For now: what is there stays as it is."""
        self._log.warning("controller.blind", reason=error.detail)

    async def look(self) -> Plan:
        """One look, and what follows from it. Raises `Unavailable` if there is nothing to see by."""
        hosts = await self._directory.members("host")
        running = await self._processes.names()
        decided = plan(hosts, running, self._bounds, self._clock.monotonic(), self.history)
        self.history = decided.history
        for name in decided.stop:
            self._log.warning("host.given_up", name=name)
            await self._end(name)
        for name in decided.start:
            self._log.info("host.wanted", name=name, up=len(self.history.up), wanted=self.history.wanted)
            await self._processes.start(name)
        for name in decided.drain:
            self._begin_drain(name)
        return decided

    # -- leaving

    def _begin_drain(self, name: str) -> None:
        if name in self._drains:
            return
        task = self._drains[name] = asyncio.get_running_loop().create_task(self._drain(name))
        task.add_done_callback(lambda _: self._drains.pop(name, None))

    async def _drain(self, name: str) -> None:
        """A drain that fails is begun again by the next look that sees its host still there."""
        self._log.info("host.draining", name=name)
        try:
            await self.drain(name)
        except FlotillaError as error:
            self._log.warning("drain.failed", name=name, reason=error.detail)

    async def drain(self, name: str) -> None:
        """Has a host let go of its actors, and ends it once it holds none, or when the time is up."""
        begun = self._clock.monotonic()
        while (waited_s := self._clock.monotonic() - begun) < DRAIN_DEADLINE_S:
            left = await self._tell_to_drain(name)
            if left == 0 and waited_s >= DRAIN_SETTLES_S:
                break
            if left is None and name not in await self._processes.names():
                break
            await self._clock.sleep(DRAIN_LOOK_EVERY_S)
        await self._end(name)

    async def _tell_to_drain(self, name: str) -> int | None:
        """How many actors are still active there; None if it can't be reached. Told again each time, as it
        may have been started again since."""
        host = _named(name, await self._directory.members("host"))
        if host is None:
            return None
        try:
            answer = await self._ask(host, "drain", b"")
        except Unavailable:
            return None
        return msgspec.msgpack.decode(answer, type=int)

    async def _end(self, name: str) -> None:
        """Ends a host and takes it off the lists: those of who is there and those of who lives where."""
        await self._processes.stop(name)
        if host := _named(name, await self._directory.members("host")):
            await self._directory.leave(host)
        for actor, pinned in (await self._pins.pins()).items():
            if pinned == name:
                await self._pins.unpin(actor)
        self._log.info("host.ended", name=name)

    # -- moving

    async def move(self, actor: ActorId, host: str) -> None:
        """Has `actor` live at the host of that name, from now on until it is unpinned or the host is gone.

        Raises `NotFound` if no host of that name is up, `LimitReached` if too many actors are pinned."""
        hosts, pins = await self._directory.members("host"), await self._pins.pins()
        target = _named(host, hosts)
        if target is None or target.state != "up":
            names = ", ".join(member.name for member in hosts if member.state == "up")
            raise NotFound(f"No host {host!r} is up.", field="host", next=f"There are: {names}.")
        owner = placement.owner(actor, hosts, pins)
        await self._pins.pin(actor, host)
        if owner is not None and owner.name != host:
            await self._release(actor, owner)

    async def _release(self, actor: ActorId, owner: Member) -> None:
        """At once, so that its new home finds it free; and again when all have seen the pin, should a
        caller who hadn't have woken it where it was."""
        for pause_s in (DRAIN_SETTLES_S, 0.0):
            try:
                await self._ask(owner, "release", frames.encode(actor))
            except Unavailable as error:  # it will see the pin by itself
                self._log.warning("release.failed", actor=str(actor), reason=error.detail)
            await self._clock.sleep(pause_s)

    async def _ask(self, host: Member, method: str, body: bytes) -> bytes:
        link = await self._links.to(host.address)
        return await link.ask(method, body, timeout_s=ASK_TIMEOUT_S)

    async def aclose(self) -> None:
        """Drops the drains that are under way: whoever controls next goes on with them."""
        drains = list(self._drains.values())
        for task in drains:
            task.cancel()
        await asyncio.gather(*drains, return_exceptions=True)


def _named(name: str, members: list[Member]) -> Member | None:
    return next((member for member in members if member.name == name), None)
