"""What customers got while versions changed under them, from what they noted: replies that failed, were cut or
mixed, and how long first tokens took."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from benchmarks.swap_versions import PLAIN, fit
from simulation.observations import TURN_ENDS, Acked, Observation, Received, Refused, Sent, Stuck

PASSES = {"unavailable", "overloaded", "deadline-passed", "mailbox-full", "limit-reached", "internal"}
"""Problems that a customer sends again for."""


class Judged(msgspec.Struct):
    """Numbers of replies, but for `why` (a line for each that is not as it should be) and `makers` (replies
    by the version that made them). `fell_back` were made by the plain one while no replica could be had;
    `rest_with_end` came whole, but not all of it word by word."""

    replies: int = 0
    interrupted: int = 0
    failed: int = 0
    cut: int = 0
    doubled: int = 0
    gaps: int = 0
    mixed: int = 0
    fell_back: int = 0
    rest_with_end: int = 0
    rewound: int = 0
    makers: Counter[str] = msgspec.field(default_factory=Counter)
    why: list[str] = []

    def bad(self, what: str, o: Observation, said: str) -> None:
        setattr(self, what, getattr(self, what) + 1)
        session = getattr(o, "session", "")
        self.why.append(f"{o.at:.3f} {what} in {session}: {said}")


def judge(observations: Iterable[Observation]) -> Judged:
    judged, readers = Judged(), defaultdict[str, _Reader](_Reader)
    for o in observations:
        match o:
            case Received():
                readers[o.session].see(o, judged)
            case Refused() if o.problem not in PASSES:
                judged.bad("failed", o, f"{o.message} was refused: {o.problem}")
            case Stuck():
                judged.bad("failed", o, f"it waits for {o.what}")
            case _:
                pass
    return judged


class _Reader:
    """What is on one customer's screen."""

    def __init__(self) -> None:
        self.turn = ""
        self.text = ""

    def see(self, got: Received, judged: Judged) -> None:
        if got.type == "reply.delta":
            self._delta(got, judged)
        elif got.type == "reply.rewound":
            judged.rewound += 1
            self.text = self.text[: got.offset]
        elif got.type == "reply.failed":
            judged.bad("failed", got, got.turn)
        elif got.type in TURN_ENDS:
            self._end(got, judged)

    def _delta(self, got: Received, judged: Judged) -> None:
        if got.turn != self.turn:
            self.turn, self.text = got.turn, ""
        if got.offset != len(self.text):
            what = "gaps" if got.offset > len(self.text) else "doubled"
            judged.bad(what, got, f"text at {got.offset} behind {len(self.text)} characters")
        self.text = self.text[: got.offset] + got.text

    def _end(self, got: Received, judged: Judged) -> None:
        done = got.type == "reply.completed"
        judged.replies += done
        judged.interrupted += not done
        shown = self.text if got.turn == self.turn else ""
        if not got.text.startswith(shown):
            judged.bad("doubled", got, f"{shown!r} was shown of {got.text!r}")
        judged.rest_with_end += done and shown != got.text
        if done:
            judged.makers[got.model] += 1
            judged.fell_back += got.model == PLAIN
        self._fits(got, done, judged)

    def _fits(self, got: Received, done: bool, judged: Judged) -> None:
        found = fit(got.text, got.model, whole=done)
        if found in ("mixed", "foreign"):
            judged.bad("mixed", got, f"{got.model or 'somebody'} is said to have made {got.text!r}")
        elif found == "cut":
            judged.bad("cut", got, f"{got.text!r} of {got.model}")


# -- first tokens


class FirstToken(msgspec.Struct, frozen=True):
    """`asked_at` on the customers' clock; `seconds` until the first word was seen."""

    asked_at: float
    seconds: float


def first_tokens(observations: Sequence[Observation]) -> list[FirstToken]:
    """Of messages that did not have to wait for another reply of their conversation."""
    found: list[FirstToken] = []
    talks = defaultdict[str, _Talk](_Talk)
    for o in observations:
        match o:
            case Sent():
                talks[o.session].sent(o)
            case Acked():
                talks[o.session].acked(o)
            case Received():
                if first := talks[o.session].received(o):
                    found.append(first)
            case _:
                pass
    return found


class _Talk:
    def __init__(self) -> None:
        self.quiet: dict[str, float] = {}  # messages sent while no reply was owed, and when
        self.waiting: dict[str, float] = {}  # their turns
        self.owed: set[str] = set()
        self.known: set[str] = set()

    def sent(self, sent: Sent) -> None:
        if sent.message not in self.known and not self.owed:
            self.quiet[sent.message] = sent.at
        self.known.add(sent.message)

    def acked(self, acked: Acked) -> None:
        self.owed.add(acked.turn)
        if (at := self.quiet.pop(acked.message, None)) is not None:
            self.waiting[acked.turn] = at

    def received(self, got: Received) -> FirstToken | None:
        if got.type in TURN_ENDS:
            self.owed.discard(got.turn)
            self.waiting.pop(got.turn, None)
        elif got.type == "reply.delta" and (at := self.waiting.pop(got.turn, None)) is not None:
            return FirstToken(at, got.at - at)
        return None
