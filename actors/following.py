"""Following: an actor's events as they come, carried over from host to host."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from actors import frames
from actors.follower import Follower
from actors.outcomes import moved
from actors.place import Gap, Place
from actors.ways import RETRY_FIRST_S, RETRY_MOST_S, NotTaken, Ways
from flotilla.core.errors import Moved, Unavailable
from flotilla.core.ids import ActorId
from flotilla.views import events
from flotilla.views.events import Frame


class Following:
    """`rewound` counts how often a reply had to be cut back at a reader's."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self.rewound = 0

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
            except Moved as elsewhere:
                sent_to = "" if sent_to else elsewhere.field or ""
                if sent_to:
                    continue
            except (Unavailable, NotTaken):
                sent_to = ""
            except Gap:
                continue
            finally:
                self.rewound += place.rewound
                place.rewound = 0
            await self._ways.clock.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_MOST_S)

    async def _follow_owner(self, actor: ActorId, place: Place, sent_to: str) -> AsyncGenerator[Frame]:
        owner = await self._ways.find(actor, sent_to)
        if self._ways.is_here(owner):
            async with aclosing(self._follow_here(actor, place)) as here:
                async for frame in here:
                    yield frame
            return
        frame = frames.FollowFrame(actor, place.after, place.offset, int(bool(sent_to)))
        link = await self._ways.link_to(owner)
        try:
            async with aclosing(link.call("follow", frames.encode(frame))) as items:
                async for item in items:
                    yield events.parse_frame(item)
        except Unavailable:
            if link.lost:
                self._ways.roster.suspect(owner)
            raise

    async def _follow_here(self, actor: ActorId, place: Place) -> AsyncGenerator[Frame]:
        assert self._ways.local is not None
        follower = Follower(place.after, place.offset)
        activation = self._ways.local.follow(actor, follower)
        try:
            async for item in follower.frames():
                yield events.parse_frame(item)
        finally:
            follower.end(moved())
            activation.unfollow(follower)
