"""How the rest of the world talks to actors: by name, wherever they live now.

A message that was not taken is sent to the next owner, until patience ends; one whose outcome is
unknown only if it is idempotent. A follower is carried over from host to host and sees neither a
gap nor a repetition.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from actors import frames
from actors.dedicated import Finder
from actors.follower import Follower
from actors.link import Link, Links, Unanswered
from actors.outcomes import moved
from actors.place import Gap, Place
from actors.refs import ActorRef
from actors.roster import Roster
from actors.tickets import Copied, Ticket
from flotilla.core.actor import Actor
from flotilla.core.calls import CHAIN_MAX, Call
from flotilla.core.clock import Clock
from flotilla.core.effects import Due, Message
from flotilla.core.errors import Cycle, DeadlinePassed, FlotillaError, Moved, Overloaded, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.journal import Letter
from flotilla.core.members import Member
from flotilla.views import events
from flotilla.views.events import Frame

if TYPE_CHECKING:
    from actors.host import Host

RETRY_FIRST_S = 0.02
RETRY_MOST_S = 0.5
ASK_PATIENCE_S = 10.0
DEDICATED_PATIENCE_S = 60.0  # its process may have to be started first
# A try: shorter than the patience, so that a host that fell silent leaves time for its successor.
ASK_TRY_S = 5.0
TELLS_WAITING_MAX = 10_000
NO_CALL = Call()

A = TypeVar("A")
T = TypeVar("T")


class NotTaken(Exception):
    """A try that has changed nothing for sure, with what went wrong."""

    def __init__(self, error: FlotillaError) -> None:
        super().__init__(error.detail)
        self.error = error


class Fleet:
    """`local` is the host of this process, if it has one: its own actors are reached without a link."""

    def __init__(self, links: Links, roster: Roster, clock: Clock, log: Any = None) -> None:
        self._links = links
        self.roster = roster
        self._clock = clock
        self._log = log
        self._tells: set[asyncio.Task[None]] = set()
        self._last_told: dict[ActorId, asyncio.Task[None]] = {}  # of those that are still on their way
        self._finder = Finder(roster, links, clock)
        self.local: Host | None = None
        self.rewound = 0
        self.tells_lost = 0
        # A host that is out of the fleet without having closed its sockets: what waits for it must not.
        roster.on_gone(links.drop)

    @property
    def links(self) -> int:
        """How many links of this process are up."""
        return len(self._links)

    def ref(self, kind: type[Actor], tenant: str, name: str) -> ActorRef:
        return ActorRef(self, kind, ActorId(tenant, kind.kind.name, name))

    def home(self, actor: ActorId) -> str | None:
        """The name of the host where `actor` lives, as far as this process knows."""
        owner = self.roster.owner(actor)
        return owner.name if owner is not None else None

    async def ping(self) -> None:
        """Raises `Unavailable` unless every host that is believed alive answers."""
        hosts = self.roster.members("host")
        if not hosts:
            raise _no_host()
        for host in hosts:
            await (await self._links.to(host.address)).ask("ping", b"", timeout_s=2.0)

    # -- asking

    async def ask(
        self, actor: ActorId, message: Message[A], *, timeout_s: float | None = None, call: Call = NO_CALL
    ) -> A:
        """The actor's answer. Raises what it refuses with, `DeadlinePassed`, `Cycle`, `Unavailable`."""
        patience_s = self._patience_s(actor) if timeout_s is None else timeout_s
        try_s = ASK_TRY_S if timeout_s is None else timeout_s
        until = self._clock.monotonic() + patience_s
        body = frames.encode_message(message)

        async def once(hops: int, owner: Member) -> A:
            left_s = until - self._clock.monotonic()
            onward = msgspec.structs.replace(call, left_s=max(0.0, min(try_s, left_s)))
            try:
                answer = await self._ask_at(owner, frames.AskFrame(actor, body, onward, hops))
            except Unanswered:
                if left_s > try_s:
                    raise
                raise _late(patience_s) from None
            return frames.decode_answer(message, answer)

        _check_chain(actor, call)
        return await self._patiently(actor, once, until, message.idempotent)

    async def _ask_at(self, owner: Member, frame: frames.AskFrame) -> bytes:
        """Raises `Unanswered` when the time of its call is up."""
        assert frame.call.left_s is not None
        if self._is_here(owner):
            return await _within(frame.call.left_s, self._ask_here(frame))
        return await self._over(owner, "ask", frames.encode(frame), frame.call.left_s)

    async def _ask_here(self, frame: frames.AskFrame) -> bytes:
        """Without a link, and in all else as with one."""
        promise = Copied()
        self._deliver_here(frame, promise)
        return await promise.future

    def _deliver_here(self, frame: frames.AskFrame, ticket: Ticket | None) -> None:
        assert self.local is not None
        message = self.local.message(frame.actor, frame.message)
        self.local.deliver(frame.actor, message, ticket, frame.call)

    def _patience_s(self, actor: ActorId) -> float:
        return DEDICATED_PATIENCE_S if self.roster.is_dedicated(actor) else ASK_PATIENCE_S

    async def due(self, actor: ActorId, due: Due) -> None:
        """Delivers a reminder; returns once it is handled."""

        await self._send(actor, "due", lambda hops: frames.DueFrame(actor, due, hops), ASK_TRY_S, True)

    async def replay(self, letter: Letter, timeout_s: float = ASK_PATIENCE_S) -> None:
        """Sends a dead letter's message to its actor again; returns once the actor has taken it. Raises
        what it is refused with; `Unavailable` or `DeadlinePassed` if nobody can say whether it was taken."""

        def frame(hops: int) -> frames.ReplayFrame:
            return frames.ReplayFrame(letter.actor, letter.id, letter.message, hops)

        await self._send(letter.actor, "replay", frame, timeout_s, False)

    async def _send(
        self,
        actor: ActorId,
        method: str,
        frame: Callable[[int], Any],
        timeout_s: float,
        idempotent: bool,
    ) -> bytes:
        async def once(hops: int, owner: Member) -> bytes:
            return await self._over(owner, method, frames.encode(frame(hops)), timeout_s)

        return await self._patiently(actor, once, self._clock.monotonic() + timeout_s, idempotent)

    async def _patiently(
        self,
        actor: ActorId,
        once: Callable[[int, Member], Awaitable[T]],
        until: float,
        idempotent: bool,
    ) -> T:
        pause_s, sent_to, hops = RETRY_FIRST_S, "", 0
        while True:
            try:
                return await once(hops, await self._find(actor, sent_to))
            except NotTaken as not_taken:
                error: FlotillaError = not_taken.error
            except Moved as moved:
                error = moved
                sent_to, hops = (moved.field or "", hops + 1) if hops == 0 else ("", 0)
                if sent_to:
                    continue
            except Unavailable as unknown:
                if not idempotent:
                    raise
                error = unknown
            sent_to, hops = "", 0
            if self._clock.monotonic() + pause_s > until:
                raise error
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_MOST_S)

    async def _over(self, owner: Member, method: str, body: bytes, timeout_s: float) -> bytes:
        link = await self._link_to(owner)
        try:
            return await link.ask(method, body, timeout_s=timeout_s)
        except Unavailable:
            if link.lost:
                self.roster.suspect(owner)
            raise

    async def _link_to(self, owner: Member) -> Link:
        try:
            return await self._links.to(owner.address)
        except Unavailable as error:
            self.roster.suspect(owner)
            raise NotTaken(error) from None

    async def _find(self, actor: ActorId, sent_to: str = "") -> Member:
        """Where the actor lives. Raises `NotTaken` while there is no host or, for a dedicated actor, while
        its process is being started."""
        if not self.roster.is_dedicated(actor):
            return self._owner(actor, sent_to)
        try:
            return await self._finder.resolve(actor)
        except Unavailable as error:
            raise NotTaken(error) from None

    def _owner(self, actor: ActorId, sent_to: str = "") -> Member:
        """Where hashing says or, if a host has said so, at another. Who trusts that one no more goes where
        it would go without it: there it is taken in, as one that was sent."""
        if sent_to:
            host = self.roster.named("host", sent_to)
            if host is None:
                raise NotTaken(_unknown_host(actor, sent_to))
            if not self.roster.suspects(host):
                return host
        owner = self.roster.owner(actor)
        if owner is None:
            raise NotTaken(_no_host())
        return owner

    def _is_here(self, owner: Member) -> bool:
        return self.local is not None and owner.name == self.local.name

    # -- telling

    def tell(self, actor: ActorId, message: Message[Any], *, call: Call = NO_CALL) -> None:
        """At most once, without an answer. What could not be sent is counted and logged."""
        _check_chain(actor, call)
        frame = frames.AskFrame(actor, frames.encode_message(message), call)
        if actor in self._last_told:
            return self._tell_later(frame)
        try:
            owner = self._owner(actor)
            if self._is_here(owner):
                return self._deliver_here(frame, None)
            link = self._links.known(owner.address)
            if link is not None and not link.lost:
                return link.tell("tell", frames.encode(frame))
        except (FlotillaError, NotTaken):
            pass  # the patient way knows what to do, or says what is wrong
        return self._tell_later(frame)

    def _tell_later(self, frame: frames.AskFrame) -> None:
        if len(self._tells) >= TELLS_WAITING_MAX:
            raise Overloaded(f"{len(self._tells)} messages wait to be sent.", retry_after_s=1.0)
        before = self._last_told.get(frame.actor)
        task = asyncio.get_running_loop().create_task(self._tell(frame, before))
        self._last_told[frame.actor] = task
        self._tells.add(task)
        task.add_done_callback(lambda _: self._told(frame.actor, task))

    def _told(self, actor: ActorId, task: asyncio.Task[None]) -> None:
        self._tells.discard(task)
        if self._last_told.get(actor) is task:
            del self._last_told[actor]

    async def _tell(self, frame: frames.AskFrame, before: asyncio.Task[None] | None) -> None:
        """In its order: behind the one before it to the same actor."""
        until = self._clock.monotonic() + ASK_PATIENCE_S
        if before is not None:
            await asyncio.wait([before])

        async def once(hops: int, owner: Member) -> None:
            if self._is_here(owner):
                return self._deliver_here(frame, None)
            body = frames.encode(msgspec.structs.replace(frame, hops=hops))
            return (await self._link_to(owner)).tell("tell", body)

        try:
            await self._patiently(frame.actor, once, until, False)
        except FlotillaError as error:
            self.lost(frame.actor, error)

    def lost(self, actor: ActorId, error: FlotillaError) -> None:
        """Counts and logs a message that was told and could not be delivered."""
        self.tells_lost += 1
        if self._log is not None:
            self._log.warning("tell.lost", actor=str(actor), reason=error.detail)

    # -- streams

    async def stream(
        self, actor: ActorId, message: Message[A], *, call: Call = NO_CALL
    ) -> AsyncGenerator[Any]:
        """Parts of the answer as they are made, then the answer. A stream that breaks is not resumed."""
        _check_chain(actor, call)
        body = frames.encode_message(message)

        async def once(hops: int, owner: Member) -> tuple[AsyncGenerator[bytes], bytes]:
            link = await self._link_to(owner)
            items = link.call("stream", frames.encode(frames.AskFrame(actor, body, call, hops)))
            return items, await anext(items)

        until = self._clock.monotonic() + self._patience_s(actor)
        items, first = await self._patiently(actor, once, until, message.idempotent)
        async with aclosing(items):
            yield msgspec.msgpack.decode(first)
            async for item in items:
                yield msgspec.msgpack.decode(item)

    async def follow(self, actor: ActorId, after: int, offset: int = 0) -> AsyncGenerator[Frame]:
        """Every event with `seq > after`, once and in order, for as long as somebody listens; of the reply
        that was under way at `after`, the text from character `offset` on. Goes on over the death of hosts."""
        place, pause_s, sent_to = Place(after, offset), RETRY_FIRST_S, ""
        while True:
            try:
                async with aclosing(self._follow_owner(actor, place, sent_to)) as parsed:
                    async for frame in parsed:
                        pause_s = RETRY_FIRST_S
                        for out in place.take(frame):
                            yield out
            except Moved as moved:
                sent_to = "" if sent_to else moved.field or ""
                if sent_to:
                    continue
            except (Unavailable, NotTaken):
                sent_to = ""
            except Gap:
                continue
            finally:
                self.rewound += place.rewound
                place.rewound = 0
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_MOST_S)

    async def _follow_owner(self, actor: ActorId, place: Place, sent_to: str) -> AsyncGenerator[Frame]:
        owner = await self._find(actor, sent_to)
        if self._is_here(owner):
            async with aclosing(self._follow_here(actor, place)) as here:
                async for frame in here:
                    yield frame
            return
        frame = frames.FollowFrame(actor, place.after, place.offset, int(bool(sent_to)))
        link = await self._link_to(owner)
        try:
            async with aclosing(link.call("follow", frames.encode(frame))) as items:
                async for item in items:
                    yield events.parse_frame(item)
        except Unavailable:
            if link.lost:
                self.roster.suspect(owner)
            raise

    async def _follow_here(self, actor: ActorId, place: Place) -> AsyncGenerator[Frame]:
        assert self.local is not None
        follower = Follower(place.after, place.offset)
        activation = self.local.follow(actor, follower)
        try:
            async for item in follower.frames():
                yield events.parse_frame(item)
        finally:
            follower.end(moved())
            activation.unfollow(follower)


async def _within(timeout_s: float, answer: Awaitable[A]) -> A:
    try:
        return await asyncio.wait_for(answer, timeout_s)
    except TimeoutError:
        raise Unanswered(f"No answer in {timeout_s:g} s.", retry_after_s=1.0) from None


def _check_chain(actor: ActorId, call: Call) -> None:
    if str(actor) in call.chain or len(call.chain) >= CHAIN_MAX:
        raise Cycle(
            f"{actor} is asked by those who wait for it: {' → '.join((*call.chain, str(actor)))}.",
            next="Answer first and tell later, or ask another actor.",
        )


def _late(after_s: float) -> DeadlinePassed:
    return DeadlinePassed(f"No answer in {after_s:g} s.", next="Ask again, or give it more time.")


def _unknown_host(actor: ActorId, name: str) -> Unavailable:
    return Unavailable(f"{actor} lives at {name}, which is not known here yet.", retry_after_s=1.0)


def _no_host() -> Unavailable:
    return Unavailable("No host is alive.", next="Try again; hosts restart by themselves.", retry_after_s=1.0)
