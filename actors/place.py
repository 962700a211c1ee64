"""How far a follower has come, and what it may be shown next."""

from __future__ import annotations

from collections.abc import Callable

from flotilla.views import events
from flotilla.views.events import Frame


class Gap(Exception):
    """The host has shown text that did not get here: ask it again."""


class Place:
    """How far a follower has come: the last durable event, and the text of the reply under way. `carried`: it
    was there before, at another host; what was said while it was on its way is to be as if it had not left."""

    __slots__ = ("_rewound", "after", "carried", "offset")

    def __init__(self, after: int, offset: int, rewound: Callable[[], None] | None = None) -> None:
        self.after = after
        self.offset = offset
        self.carried = False
        self._rewound = rewound

    @property
    def id(self) -> str:
        return f"{self.after}:{self.offset}" if self.offset else f"{self.after}"

    def take(self, frame: Frame) -> list[Frame]:
        """What to hand on, in order, now that `frame` has come."""
        if frame.offset is not None:
            return self._take_delta(frame, frame.offset)
        if frame.seq <= self.after:
            return []
        type = events.open_envelope(frame.json).type
        before = self._unseen(frame) if (self.offset or self.carried) and type in events.TURN_ENDS else []
        self.after = frame.seq
        if type in _BOUNDS:
            self.offset = 0
        return [*before, self._named(frame)]

    def _unseen(self, end: Frame) -> list[Frame]:
        """The rest of a reply, if its end comes without it: another host has recorded it, and read aloud by
        whoever joins deltas the reply is to be whole. Of replies that were over before it came, nobody joins any."""
        rest = events.rest(end.json, self.offset)
        if rest is None:
            return []
        self.offset += rest.length
        return [self._named(rest)]

    def _take_delta(self, frame: Frame, offset: int) -> list[Frame]:
        if offset > self.offset:
            raise Gap
        back: list[Frame] = []
        if offset < self.offset:
            self.offset = offset
            turn = events.open_envelope(frame.json).turn or ""
            back.append(self._named(events.rewound(frame.seq, turn, offset)))
            if self._rewound is not None:
                self._rewound()
        self.offset = offset + frame.length
        return [*back, self._named(frame)]

    def _named(self, frame: Frame) -> Frame:
        return Frame(frame.seq, frame.offset, frame.length, frame.json, self.id)


# A reply's text is counted from the first of these to the second.
_BOUNDS = events.TURN_ENDS | {"reply.started"}
