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
from actors.following import Following, Reading
from actors.link import Links, Unanswered
from actors.refs import ActorRef
from actors.roster import Roster
from actors.telling import Telling
from actors.tickets import Copied
from actors.watch import Viewer, Watch
from actors.ways import Ways, no_host
from flotilla.core.actor import Actor
from flotilla.core.calls import CHAIN_MAX, Call
from flotilla.core.clock import Clock
from flotilla.core.effects import Due, Message
from flotilla.core.errors import Cycle, DeadlinePassed, FlotillaError
from flotilla.core.ids import ActorId
from flotilla.core.journal import Letter
from flotilla.core.members import Member
from flotilla.views.events import Frame

if TYPE_CHECKING:
    from actors.host import Host

ASK_PATIENCE_S = 10.0
DEDICATED_PATIENCE_S = 60.0  # its process may have to be started first
# A try: shorter than the patience, so that a host that fell silent leaves time for its successor.
ASK_TRY_S = 5.0
NO_CALL = Call()

A = TypeVar("A")


class Fleet:
    def __init__(self, links: Links, roster: Roster, clock: Clock, log: Any = None) -> None:
        self.roster = roster
        self._ways = Ways(links, roster, clock)
        self._telling = Telling(self._ways, log)
        self._following = Following(self._ways)
        # A host that is out of the fleet without having closed its sockets: what waits for it must not.
        roster.on_gone(links.drop)

    def settle_here(self, host: Host) -> None:
        """`host` is that of this process: its actors are reached without a link."""
        self._ways.local = host

    @property
    def links(self) -> int:
        """How many links of this process are up."""
        return len(self._ways.links)

    @property
    def tells_lost(self) -> int:
        return self._telling.lost

    @property
    def rewound(self) -> int:
        return self._following.rewound

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
            raise no_host()
        for host in hosts:
            await (await self._ways.links.to(host.address)).ask("ping", b"", timeout_s=2.0)

    async def ask(
        self, actor: ActorId, message: Message[A], *, timeout_s: float | None = None, call: Call = NO_CALL
    ) -> A:
        """The actor's answer. Raises what it refuses with, `DeadlinePassed`, `Cycle`, `Unavailable`."""
        patience_s = self._patience_s(actor) if timeout_s is None else timeout_s
        try_s = ASK_TRY_S if timeout_s is None else timeout_s
        until = self._ways.clock.monotonic() + patience_s
        body = frames.encode_message(message)

        async def once(hops: int, owner: Member) -> A:
            left_s = until - self._ways.clock.monotonic()
            onward = msgspec.structs.replace(call, left_s=max(0.0, min(try_s, left_s)))
            try:
                answer = await self._ask_at(owner, frames.AskFrame(actor, body, onward, hops))
            except Unanswered:
                if left_s > try_s:
                    raise
                raise _late(patience_s) from None
            return frames.decode_answer(message, answer)

        _check_chain(actor, call)
        return await self._ways.patiently(actor, once, until, message.idempotent)

    async def _ask_at(self, owner: Member, frame: frames.AskFrame) -> bytes:
        """Raises `Unanswered` when the time of its call is up."""
        assert frame.call.left_s is not None
        if self._ways.is_here(owner):
            return await _within(frame.call.left_s, self._ask_here(frame))
        return await self._ways.over(owner, "ask", frames.encode(frame), frame.call.left_s)

    async def _ask_here(self, frame: frames.AskFrame) -> bytes:
        promise = Copied()
        self._ways.deliver_here(frame, promise)
        return await promise.future

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
            return await self._ways.over(owner, method, frames.encode(frame(hops)), timeout_s)

        return await self._ways.patiently(actor, once, self._ways.clock.monotonic() + timeout_s, idempotent)

    # -- telling, streams, following

    def tell(self, actor: ActorId, message: Message[Any], *, call: Call = NO_CALL) -> None:
        """At most once, without an answer. What could not be sent is counted and logged."""
        _check_chain(actor, call)
        self._telling.tell(frames.AskFrame(actor, frames.encode_message(message), call))

    def lost(self, actor: ActorId, error: FlotillaError) -> None:
        """Counts and logs a message that could not even be told."""
        self._telling.failed(actor, error)

    def follow(self, actor: ActorId, after: int, offset: int = 0) -> AsyncGenerator[Frame]:
        """Every event with `seq > after`, once and in order, for as long as somebody listens."""
        return self._following.follow(actor, after, offset)

    def read(self, actor: ActorId, after: int, offset: int = 0) -> Reading:
        """The same for somebody who doesn't wait for ever. To be closed."""
        return self._following.read(actor, after, offset)

    def watch(self, actor: ActorId, after: int, offset: int, viewer: Viewer) -> Watch:
        """The same for thousands at once: `viewer` is called with each event, and nothing waits."""
        return self._following.watch(actor, after, offset, viewer)

    async def stream(
        self, actor: ActorId, message: Message[A], *, call: Call = NO_CALL
    ) -> AsyncGenerator[Any]:
        """Parts of the answer as they are made, then the answer. A stream that breaks is not resumed."""
        _check_chain(actor, call)
        body = frames.encode_message(message)

        async def once(hops: int, owner: Member) -> tuple[AsyncGenerator[bytes], bytes]:
            link = await self._ways.link_to(owner)
            items = link.call("stream", frames.encode(frames.AskFrame(actor, body, call, hops)))
            return items, await anext(items)

        until = self._ways.clock.monotonic() + self._patience_s(actor)
        items, first = await self._ways.patiently(actor, once, until, message.idempotent)
        async with aclosing(items):
            yield msgspec.msgpack.decode(first)
            async for item in items:
                yield msgspec.msgpack.decode(item)


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
