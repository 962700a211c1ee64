"""How far a reader of a conversation has come, and what it is shown next. Pure: events in, events out.

Connections break, and each begins a little before or behind the last. What comes out is as if there had been one:
every durable event once and in order, and deltas that join. What was missed of a reply that has ended meanwhile comes
as one `Delta` before its end, so that **the text of the deltas is always the text of the reply**.
"""

from __future__ import annotations

from collections import deque

from flotilla.client.events import (
    Accepted,
    Completed,
    Delta,
    Denied,
    Event,
    Failed,
    Interrupted,
    Other,
    Piece,
    Rewound,
    Started,
)
from flotilla.core.errors import Refused

ENDED_TURNS_KEPT = 16


class Gap(Exception):
    """Something is missing: ask again, from the reader's place on."""


class Reader:
    """`after` is a place: `SEQ`, or `SEQ:OFFSET` inside a reply. Of one that reads a turn alone (not `whole`),
    events of others are missing as a matter of course."""

    def __init__(self, after: int | str = 0, *, whole: bool = True) -> None:
        self._after, self._unknown = parse_place(after)
        self._whole = whole
        self._text = ""  # of the reply under way, behind the `_unknown` characters that were seen elsewhere
        self._turn = ""  # whose reply that is, once it is known
        self._asked: dict[str, int] = {}  # the seq of each running turn's first message
        self._ended: deque[str] = deque(maxlen=ENDED_TURNS_KEPT)
        self._doubted: dict[str, str] = {}  # what was missing when it was last asked for, and at which place

    @property
    def place(self) -> str:
        """What to ask for next: everything behind it is still to come."""
        return f"{self._after}:{self._shown}" if self._shown else str(self._after)

    @property
    def seq(self) -> int:
        """The last durable event that was seen."""
        return self._after

    @property
    def text(self) -> str:
        """The reply under way, as far as this reader has seen it."""
        return self._text

    @property
    def _shown(self) -> int:
        return self._unknown + len(self._text)

    def take(self, event: Event) -> tuple[Event, ...]:
        """What to show, in order; nothing for what was seen before. Raises `Gap`, once for each place: what is
        still missing when it was asked for again is not for this reader (a note, to a visitor)."""
        match event:
            case Delta():
                return self._take_delta(event)
            case Rewound():
                return self._take_rewound(event)
            case Denied() | Other(at=""):
                return (event,)
            case _:
                return self._take_durable(event)

    # -- text on its way

    def _take_delta(self, event: Delta) -> tuple[Event, ...]:
        if event.turn in self._ended:
            return ()
        if event.offset > self._shown or event.turn != (self._turn or event.turn):
            self._doubt("text", self.place)
            return ()  # the end of the reply brings it
        self._turn = event.turn
        if event.offset == self._shown and event.text:  # as all do on a connection that is whole
            self._text += event.text
            return (event,)
        return self._join(event.seq, event.turn, event.offset, event.text)

    def _take_rewound(self, event: Rewound) -> tuple[Event, ...]:
        if event.turn != (self._turn or event.turn) or event.offset >= self._shown:
            return ()
        self._cut(event.offset)
        return (event,)

    def _join(self, seq: int, turn: str, offset: int, text: str) -> tuple[Event, ...]:
        """Shows what is new of `text`. Where it says something else than before, that is taken back."""
        text, offset = text[max(0, self._unknown - offset) :], max(offset, self._unknown)
        there = self._text[offset - self._unknown :]
        same = _common(there, text)
        new, back = text[same:], min(len(there), len(text)) > same
        offset += same
        if not new and not back:
            return ()
        out: list[Event] = []
        if back:
            self._cut(offset)
            out.append(Rewound(seq=seq, turn=turn, piece=Piece(offset=offset)))
        if new:
            self._text += new
            out.append(Delta(seq=seq, turn=turn, piece=Piece(offset=offset, text=new)))
        return tuple(out)

    def _cut(self, offset: int) -> None:
        self._text = self._text[: max(0, offset - self._unknown)]
        self._unknown = min(self._unknown, offset)

    # -- what is in the record

    def _take_durable(self, event: Event) -> tuple[Event, ...]:
        assert not isinstance(event, Denied)
        if event.seq <= self._after:
            return ()
        if self._whole and event.seq > self._after + 1:
            self._doubt("event", f"{self._after} {event.seq}")
        before = self._before(event)
        self._after = event.seq
        return (*before, event)

    def _before(self, event: Event) -> tuple[Event, ...]:
        """What has to be shown first, so that the text is right; and what follows from the event."""
        match event:
            case Accepted():
                self._asked.setdefault(event.turn, event.seq)
                return ()
            case Started():
                return self._begin_again(event)
            case Completed():
                return self._end(event, event.said.text)
            case Interrupted():
                return self._end(event, event.stopped.text)
            case Failed():
                return self._end(event, None)
            case _:
                return ()

    def _begin_again(self, event: Started) -> tuple[Event, ...]:
        """A reply that is begun again, with one more message, is begun from nothing."""
        again, self._turn = bool(self._shown), event.turn
        if not again:
            return ()
        self._text, self._unknown = "", 0
        return (Rewound(seq=self._asked.get(event.turn, event.seq), turn=event.turn, piece=Piece(offset=0)),)

    def _end(self, event: Completed | Interrupted | Failed, text: str | None) -> tuple[Event, ...]:
        seq = self._asked.pop(event.turn, event.seq)
        out = () if text is None else self._heal(seq, event.turn, text)
        self._ended.append(event.turn)
        self._text, self._unknown, self._turn = "", 0, ""
        return out

    def _heal(self, seq: int, turn: str, text: str) -> tuple[Event, ...]:
        """The text has become `text`, whatever was shown of it."""
        out = self._join(seq, turn, 0, text)
        if self._shown <= len(text):
            return out
        self._cut(len(text))
        return (*out, Rewound(seq=seq, turn=turn, piece=Piece(offset=len(text))))

    def _doubt(self, what: str, where: str) -> None:
        if self._doubted.get(what) != where:
            self._doubted[what] = where
            raise Gap


def parse_place(place: int | str) -> tuple[int, int]:
    """`SEQ` or `SEQ:OFFSET`. Raises `Refused`."""
    seq, colon, offset = str(place).partition(":")
    if not seq.isdecimal() or (colon and not offset.isdecimal()):
        raise Refused(
            f"`after` is {place!r}.", field="after", next="Give SEQ or SEQ:OFFSET, as `place` does."
        )
    return int(seq), int(offset or 0)


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    if one.startswith(other) or other.startswith(one):
        return min(len(one), len(other))
    return next(n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
