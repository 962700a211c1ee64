"""How the rest of the world talks to actors: by name, wherever they live now.

Asks are safe to repeat (a message has the client's own id, a session its name), so they are tried
again at the new owner until patience ends. A follower is carried over from host to host and sees
neither a gap nor a repetition.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from actors import frames, placement
from actors.link import Links
from actors.roster import Roster
from flotilla.core import signals
from flotilla.core.clock import Clock
from flotilla.core.errors import Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.members import Member
from flotilla.views import events
from flotilla.views.events import Frame

RETRY_FIRST_S = 0.02
RETRY_MOST_S = 0.5
ASK_PATIENCE_S = 10.0
# A try: shorter than the patience, so that a host that fell silent leaves time for its successor.
ASK_TRY_S = 5.0

_answer = msgspec.msgpack.Decoder(signals.Accepted).decode


class Fleet:
    def __init__(self, links: Links, roster: Roster, clock: Clock) -> None:
        self._links = links
        self._roster = roster
        self._clock = clock
        self.rewound = 0
        # A host that is out of the fleet without having closed its sockets: what waits for it must not.
        roster.on_gone(links.drop)

    # -- asking

    async def open(self, actor: ActorId, ask: signals.Open) -> signals.SessionView:
        return msgspec.msgpack.decode(await self._ask(actor, ask), type=signals.SessionView)

    async def describe(self, actor: ActorId) -> signals.SessionView:
        return msgspec.msgpack.decode(await self._ask(actor, signals.Describe()), type=signals.SessionView)

    async def post(self, actor: ActorId, ask: signals.Post) -> signals.Accepted:
        return _answer(await self._ask(actor, ask))

    async def interrupt(self, actor: ActorId) -> signals.Interrupted:
        return msgspec.msgpack.decode(await self._ask(actor, signals.Interrupt()), type=signals.Interrupted)

    async def close(self, actor: ActorId) -> signals.SessionView:
        return msgspec.msgpack.decode(await self._ask(actor, signals.Close()), type=signals.SessionView)

    async def ping(self) -> None:
        """Raises `Unavailable` unless every host that is believed alive answers."""
        hosts = self._roster.members("host")
        if not hosts:
            raise _no_host()
        for host in hosts:
            await (await self._links.to(host.address)).ask("ping", b"", timeout_s=2.0)

    async def _ask(self, actor: ActorId, ask: signals.Ask) -> bytes:
        body = frames.encode(frames.AskFrame(actor, ask))
        until, pause_s = self._clock.monotonic() + ASK_PATIENCE_S, RETRY_FIRST_S
        while True:
            try:
                return await self._ask_owner(actor, body)
            except Unavailable:
                if self._clock.monotonic() + pause_s > until:
                    raise
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_MOST_S)

    async def _ask_owner(self, actor: ActorId, body: bytes) -> bytes:
        owner = self._owner(actor)
        try:
            link = await self._links.to(owner.address)
        except Unavailable:
            self._roster.suspect(owner)
            raise
        try:
            return await link.ask("ask", body, timeout_s=ASK_TRY_S)
        except Unavailable:
            if link.lost:
                self._roster.suspect(owner)
            raise

    def _owner(self, actor: ActorId) -> Member:
        owner = placement.owner(actor, self._roster.members("host"))
        if owner is None:
            raise _no_host()
        return owner

    # -- following

    async def follow(self, actor: ActorId, after: int, offset: int = 0) -> AsyncGenerator[Frame]:
        """Every event with `seq > after`, once and in order, for as long as somebody listens; of the reply
        that was under way at `after`, the text from character `offset` on. Goes on over the death of hosts."""
        place, pause_s = _Place(after, offset), RETRY_FIRST_S
        while True:
            try:
                async with aclosing(self._follow_owner(actor, place)) as parsed:
                    async for frame in parsed:
                        pause_s = RETRY_FIRST_S
                        for out in place.take(frame):
                            yield out
            except Unavailable:
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MOST_S)
            except _Gap:
                continue
            finally:
                self.rewound += place.rewound
                place.rewound = 0

    async def _follow_owner(self, actor: ActorId, place: _Place) -> AsyncGenerator[Frame]:
        owner = self._owner(actor)
        body = frames.encode(frames.FollowFrame(actor, place.after, place.offset))
        try:
            link = await self._links.to(owner.address)
            async with aclosing(link.call("follow", body)) as items:
                async for item in items:
                    yield events.parse_frame(item)
        except Unavailable:
            if (link := self._links.known(owner.address)) is None or link.lost:
                self._roster.suspect(owner)
            raise


def _no_host() -> Unavailable:
    return Unavailable("No host is alive.", next="Try again; hosts restart by themselves.", retry_after_s=1.0)


class _Gap(Exception):
    """The host has shown text that did not get here: ask it again."""


class _Place:
    """How far a follower has come: the last durable event, and the text of the reply under way."""

    def __init__(self, after: int, offset: int) -> None:
        self.after = after
        self.offset = offset
        self.rewound = 0

    @property
    def id(self) -> str:
        return f"{self.after}:{self.offset}" if self.offset else f"{self.after}"

    def take(self, frame: Frame) -> list[Frame]:
        """What to hand on, in order, now that `frame` has come."""
        if frame.offset is not None:
            return self._take_delta(frame, frame.offset)
        if frame.seq <= self.after:
            return []
        self.after = frame.seq
        if events.open_envelope(frame.json).type in _BOUNDS:
            self.offset = 0
        return [self._named(frame)]

    def _take_delta(self, frame: Frame, offset: int) -> list[Frame]:
        if offset > self.offset:
            raise _Gap
        back: list[Frame] = []
        if offset < self.offset:
            self.offset = offset
            turn = events.open_envelope(frame.json).turn or ""
            back.append(self._named(events.rewound(frame.seq, turn, offset)))
            self.rewound += 1
        self.offset = offset + frame.length
        return [*back, self._named(frame)]

    def _named(self, frame: Frame) -> Frame:
        return msgspec.structs.replace(frame, id=self.id)


# A reply's text is counted from the first of these to the second.
_BOUNDS = events.TURN_ENDS | {"reply.started"}
