"""One reader of an actor's events, carried over from host to host.

It is called with what comes, so that ten thousand open sockets are no tasks: one runs only while the way to
the actor is looked for.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

from actors import frames
from actors.follower import Local
from actors.incoming import Tap, report
from actors.link import Link
from actors.place import Gap, Place
from actors.ways import RETRY_FIRST_S, RETRY_MOST_S, NotTaken, Ways
from flotilla.core.errors import FlotillaError, Moved, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.members import Member
from flotilla.views import events
from flotilla.views.events import Frame


class Viewer(Protocol):
    """Must not wait, and says by `Watch.take` that it is done with all that it got."""

    def frame(self, frame: Frame) -> None: ...

    def failed(self, error: FlotillaError) -> None:
        """There will be no more, and why."""
        ...


class Watch:
    """Every event with `seq > after`, once and in order, until it is closed; of the reply that was under way
    at `after`, the text from character `offset` on. Goes on over the death of hosts."""

    __slots__ = (
        "_actor",
        "_link",
        "_owner",
        "_pause_s",
        "_search",
        "_sent_to",
        "_stream",
        "_viewer",
        "_ways",
        "place",
    )

    def __init__(self, ways: Ways, actor: ActorId, place: Place, viewer: Viewer) -> None:
        self._ways = ways
        self._actor = actor
        self.place = place
        self._viewer = viewer
        self._pause_s = RETRY_FIRST_S
        self._sent_to = ""
        self._search: asyncio.Task[None] | None = None
        self._stream: Tap | Local | None = None  # the one that is open now, and where it comes from
        self._link: Link | None = None
        self._owner: Member | None = None

    def __repr__(self) -> str:
        return f"<Watch of {self._actor} at {self.place.id}>"

    def start(self) -> None:
        self._search = asyncio.get_running_loop().create_task(self._find(0.0))

    def take(self) -> None:
        """The viewer is done with what it got; what it holds is held against the stream's window."""
        if self._stream is not None:
            self._stream.take()

    def close(self) -> None:
        """The viewer hears nothing any more."""
        if self._search is not None:
            self._search.cancel()
        if self._stream is not None:
            self._stream.close()

    # -- the way there

    async def _find(self, pause_s: float) -> None:
        while True:
            if pause_s:
                await self._ways.clock.sleep(pause_s)
            try:
                return await self._reach()
            except (Unavailable, NotTaken, Moved) as error:
                pause_s = self._again(error)
            except Exception as error:
                return self._fail(error)

    async def _reach(self) -> None:
        owner = self._owner = await self._ways.find(self._actor, self._sent_to)
        if self._ways.is_here(owner):
            self._link, self._stream = None, self._follow_here()
        else:
            self._link = await self._ways.link_to(owner)
            self._stream = self._link.tap("follow", self._asked(), self)
        self._search = None

    def _asked(self) -> bytes:
        hops = int(bool(self._sent_to))
        return frames.encode(frames.FollowFrame(self._actor, self.place.after, self.place.offset, hops))

    def _follow_here(self) -> Local:
        assert self._ways.local is not None
        follower = Local(self.place.after, self.place.offset, self)
        activation = self._ways.local.follow(self._actor, follower)
        follower.on_gone = partial(activation.unfollow, follower)
        return follower

    def _again(self, error: FlotillaError | NotTaken) -> float:
        """How long to wait before the actor is looked for again."""
        if isinstance(error, Moved):
            self._sent_to = "" if self._sent_to else error.field or ""
            if self._sent_to:
                return 0.0
        else:
            self._sent_to = ""
        return self._longer()

    def _longer(self) -> float:
        """A pause, longer than the one before unless something has come in between."""
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, RETRY_MOST_S)
        return pause_s

    # -- what comes

    def item(self, body: bytes) -> None:
        try:
            for frame in self.place.take(events.parse_frame(body)):
                self._viewer.frame(frame)
        except Gap:  # shown there, and not here: it is asked for again
            self._drop()
            return self._look_again(self._longer())
        except Exception as error:
            self._drop()
            return self._fail(error)
        self._pause_s = RETRY_FIRST_S
        return None

    def ended(self, error: FlotillaError | None) -> None:
        self._stream = None
        if isinstance(error, Moved) or (self._link is not None and self._link.lost):
            self.place.carried = True
        if self._link is not None and self._link.lost and self._owner is not None:
            self._ways.roster.suspect(self._owner)
        if error is None:
            return self._look_again(self._longer())
        if isinstance(error, Unavailable | Moved):
            return self._look_again(self._again(error))
        return self._viewer.failed(error)

    def _fail(self, error: Exception) -> None:
        """Nobody else would ever hear of a bug on the way or in the viewer."""
        if not isinstance(error, FlotillaError):
            report(self, error)
            error = FlotillaError(
                f"{type(error).__name__} while events were followed.", next="Connect again."
            )
        self._viewer.failed(error)

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _look_again(self, pause_s: float) -> None:
        self._search = asyncio.get_running_loop().create_task(self._find(pause_s))
