"""A host: one event loop, thousands of actors.

It answers links. An actor that is asked or followed is activated from its journal; one that
nobody needs is passivated; one that was left unfinished by a dead host is woken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from actors import frames, placement
from actors.follower import Follower
from actors.session import MOVED, SessionActor
from actors.work import Work
from flotilla.core.errors import FlotillaError, NotFound, Overloaded
from flotilla.core.ids import ActorId
from flotilla.core.members import Member


class Host:
    def __init__(self, work: Work) -> None:
        self._work = work
        self._work.on_lost = self._forget
        self._actors: dict[ActorId, SessionActor] = {}
        self._waking: dict[ActorId, asyncio.Task[SessionActor]] = {}

    def __repr__(self) -> str:
        return f"<Host: {len(self._actors)} activations>"

    # -- answering

    async def answer(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        """The handler of the host's listener (`actors.link.Handler`)."""
        match method:
            case "ask":
                frame = frames.decode_ask(body)
                actor = await self.activate(frame.actor)
                yield frames.encode(await actor.ask(frame.ask))
            case "follow":
                async for item in self._follow(frames.decode_follow(body)):
                    yield item
            case "ping":
                yield b""
            case "status":
                yield frames.encode({"activations": len(self._actors)})
            case _:
                raise NotFound(f"A host has no method {method!r}.")

    async def _follow(self, frame: frames.FollowFrame) -> AsyncGenerator[bytes]:
        actor = await self.activate(frame.actor)
        follower = Follower(frame.after, frame.offset)
        actor.follow(follower)
        try:
            async for item in follower.frames():
                yield item
        finally:
            follower.end(MOVED)
            actor.unfollow(follower)

    # -- activating and passivating

    async def activate(self, id: ActorId) -> SessionActor:
        if actor := self._actors.get(id):
            return actor
        if len(self._actors) >= self._work.limits.activations_max:
            raise Overloaded(f"{len(self._actors)} actors are active here.", retry_after_s=5.0)
        task = self._waking.get(id)
        if task is None:
            task = self._waking[id] = asyncio.get_running_loop().create_task(self._wake(id))
            task.add_done_callback(lambda _: self._waking.pop(id, None))
        # Shielded: one asker that gives up must not end the activation that others wait for.
        return await asyncio.shield(task)

    async def _wake(self, id: ActorId) -> SessionActor:
        actor = SessionActor(id, self._work)
        await actor.wake()
        self._actors[id] = actor
        return actor

    def _forget(self, actor: SessionActor) -> None:
        if self._actors.get(actor.id) is actor:
            del self._actors[actor.id]

    def passivate_idle(self) -> int:
        """Forgets actors that nobody follows and that have nothing to do; returns how many."""
        now, after_s = self._work.clock.monotonic(), self._work.limits.idle_after_s
        idle = [a for a in self._actors.values() if a.idle and not a.followers]
        gone = [a for a in idle if now - a.touched > after_s or not a.session.seq]
        for actor in gone:
            actor.lose()
        return len(gone)

    def release(self, owns: Callable[[ActorId], bool]) -> int:
        """Lets go of idle actors that belong elsewhere now; their followers are told to connect again."""
        moved = [actor for id, actor in self._actors.items() if actor.idle and not owns(id)]
        for actor in moved:
            actor.lose()
        return len(moved)

    async def recover(self, owns: Callable[[ActorId], bool]) -> int:
        """Wakes the actors of ours that have work to go on with and no activation; returns how many."""
        left = [id for id in await self._work.journal.unfinished() if owns(id) and id not in self._actors]
        done = await asyncio.gather(*map(self.activate, left), return_exceptions=True)
        for id, outcome in zip(left, done, strict=True):
            if isinstance(outcome, BaseException):
                self._work.log.warning("actor.not_recovered", actor=str(id), reason=str(outcome))
        return sum(not isinstance(outcome, BaseException) for outcome in done)

    async def run(self, me: Member, hosts: Callable[[], list[Member]]) -> None:
        """The host's housekeeping, for as long as it lives."""

        def owns(id: ActorId) -> bool:
            first = placement.owner(id, hosts())
            return first is None or first.name == me.name

        while True:
            try:
                self.release(owns)
                recovered = await self.recover(owns)
                if recovered:
                    self._work.log.info("actors.recovered", count=recovered)
                self.passivate_idle()
            except FlotillaError as error:
                self._work.log.warning("housekeeping.failed", reason=error.detail)
            except Exception:  # a bug must not end the care for all the others
                self._work.log.exception("housekeeping.broke")
            await self._work.clock.sleep(self._work.limits.recover_every_s)
