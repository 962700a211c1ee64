"""The history checker: a good history passes, and each kind of bad one is caught."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from simulation.history import check
from simulation.observations import (
    Acked,
    Connected,
    Effected,
    Entry,
    Fault,
    Observation,
    Received,
    Sent,
    Stuck,
    TookOver,
)

RECORD = (
    Entry(seq=1, type="session.opened"),
    Entry(seq=2, type="message.accepted", turn="t-2", message="m-1"),
    Entry(seq=3, type="reply.started", turn="t-2"),
    Entry(seq=4, type="reply.completed", turn="t-2", text="Hello you"),
    Entry(seq=5, type="message.accepted", turn="t-5", message="m-2"),
    Entry(seq=6, type="reply.started", turn="t-5"),
    Entry(seq=7, type="reply.interrupted", turn="t-5", text="Good"),
    Entry(seq=8, type="handoff.accepted"),
    Entry(seq=9, type="note.added", shown=False),
    Entry(seq=10, type="message.sent"),
)


def sent(at: float, message: str) -> Sent:
    return Sent(at=at, client="c", session="s", message=message)


def acked(at: float, message: str, seq: int, turn: str) -> Acked:
    return Acked(at=at, client="c", session="s", message=message, seq=seq, turn=turn)


def connected(at: float, after: int = 0, offset: int = 0, fresh: bool = False) -> Connected:
    return Connected(at=at, client="c", session="s", after=after, offset=offset, fresh=fresh)


def got(at: float, seq: int, type: str, turn: str = "", text: str = "") -> Received:
    return Received(at=at, client="c", session="s", seq=seq, type=type, turn=turn, text=text)


def delta(at: float, offset: int, text: str, seq: int = 2, turn: str = "t-2") -> Received:
    return Received(
        at=at, client="c", session="s", seq=seq, type="reply.delta", turn=turn, offset=offset, text=text
    )


def rewound(at: float, offset: int) -> Received:
    return Received(at=at, client="c", session="s", seq=2, type="reply.rewound", turn="t-2", offset=offset)


FAULT = Fault(at=2.0, what="kill host-a")
GOOD: tuple[Observation, ...] = (
    connected(0.0),
    sent(1.0, "m-1"),
    got(1.1, 1, "session.opened"),
    got(1.2, 2, "message.accepted", "t-2"),
    acked(1.3, "m-1", 2, "t-2"),
    got(1.4, 3, "reply.started", "t-2"),
    delta(1.5, 0, "Hello"),
    delta(1.6, 5, " you"),
    got(1.7, 4, "reply.completed", "t-2", "Hello you"),
    sent(3.0, "m-2"),
    sent(3.5, "m-2"),
    acked(3.6, "m-2", 5, "t-5"),
    got(3.7, 5, "message.accepted", "t-5"),
    connected(3.8, 5),
    got(3.9, 6, "reply.started", "t-5"),
    delta(4.0, 0, "Good", 5, "t-5"),
    got(4.1, 7, "reply.interrupted", "t-5", "Good"),
    TookOver(at=4.2, client="p", session="s", seq=8),
    got(4.3, 8, "handoff.accepted"),
    got(4.4, 10, "message.sent"),
    Effected(at=4.5, action="pay 1", key="k-1"),
    Effected(at=4.6, action="pay 2", key="k-2"),
)


def rules(seen: Sequence[Observation], record: Sequence[Entry] = RECORD) -> set[str]:
    return {violation.rule for violation in check(seen, {"s": record})}


def before(observation: Observation, *more: Observation) -> list[Observation]:
    """The good history, with `more` in front of one of its observations."""
    at = GOOD.index(observation)
    return [*GOOD[:at], *more, *GOOD[at:]]


def without(*gone: Observation) -> list[Observation]:
    return [o for o in GOOD if o not in gone]


def test_a_good_history_passes() -> None:
    assert check(GOOD, {"s": RECORD}) == []


def test_a_violation_says_what_where_and_when() -> None:
    violation, *_ = check(without(GOOD[6]), {"s": RECORD})
    assert str(violation) == "gap at 1.6000 s in s: c got text at 5 of t-2, but has 0"


BAD_SEEN = {
    "an event twice": (before(GOOD[6], GOOD[5]), "doubled"),
    "events out of order": ([*GOOD[:3], GOOD[5], GOOD[3], *GOOD[6:]], "doubled"),
    "an event missing": (without(GOOD[5]), "gap"),
    "a delta missing": (without(GOOD[6]), "gap"),
    "the last delta missing": (without(GOOD[7]), "gap"),
    "a delta twice": (before(GOOD[7], GOOD[6]), "overlap"),
    "text that the reply does not have": (
        [msgspec.structs.replace(o, text=" they") if o is GOOD[7] else o for o in GOOD],
        "contradicted",
    ),
    "a rewind though nothing failed": (before(GOOD[7], rewound(1.55, 2), delta(1.56, 2, "llo")), "rewound"),
    "a rewind forwards": ([FAULT, *before(GOOD[7], rewound(1.55, 7))], "gap"),
    "an event that nobody recorded": ([*GOOD, got(5.0, 11, "message.sent")], "unrecorded"),
    "another event than was recorded": (
        [msgspec.structs.replace(o, type="reply.failed") if o is GOOD[5] else o for o in GOOD],
        "unrecorded",
    ),
    "a note for the customer": (before(GOOD[19], got(4.35, 9, "note.added")), "unrecorded"),
    "text after a takeover": ([*GOOD, delta(5.0, 0, "Also", 5, "t-5")], "silence"),
    "an acknowledged message that is not recorded": ([*GOOD, acked(5.0, "m-3", 11, "t-11")], "lost"),
    "an acknowledgement of something else": ([*GOOD, acked(5.0, "m-2", 2, "t-2")], "lost"),
    "an acknowledgement with another turn": ([*GOOD, acked(5.0, "m-2", 5, "t-2")], "lost"),
    "a takeover that is not recorded": ([*GOOD, TookOver(at=5.0, client="p", session="s", seq=7)], "lost"),
    "an effect twice": ([*GOOD, Effected(at=5.0, action="pay 1", key="k-9")], "effect"),
    "an effect twice under its key": ([*GOOD, Effected(at=5.0, action="pay 1", key="k-1")], "effect"),
    "a client that waits for ever": ([*GOOD, Stuck(at=9.0, client="c", session="s", what="m-9")], "stuck"),
    "a client that asks for what it has": (before(GOOD[14], connected(3.85, 4)), "resume"),
}


@pytest.mark.parametrize("name", BAD_SEEN)
def test_what_should_not_have_been_seen(name: str) -> None:
    seen, rule = BAD_SEEN[name]
    assert rule in rules(seen)


def test_a_message_sent_after_an_acknowledgement_comes_behind_it() -> None:
    turned = [
        *RECORD[:1],
        msgspec.structs.replace(RECORD[4], seq=2, turn="t-2"),
        *RECORD[2:4],
        msgspec.structs.replace(RECORD[1], seq=5, turn="t-5"),
        *RECORD[5:],
    ]
    seen = [
        sent(1.0, "m-1"),
        acked(1.3, "m-1", 5, "t-5"),
        sent(3.0, "m-2"),
        acked(3.6, "m-2", 2, "t-2"),
    ]
    assert rules(seen, turned) == {"reordered"}


def test_messages_that_are_under_way_together_may_come_in_any_order() -> None:
    seen = [
        sent(1.0, "m-1"),
        sent(1.1, "m-2"),
        acked(3.6, "m-2", 5, "t-5"),
        acked(3.7, "m-1", 2, "t-2"),
    ]
    assert rules(seen) == set()


def test_after_a_fault_text_may_be_taken_back_and_said_anew() -> None:
    seen = [FAULT, *before(GOOD[7], delta(1.51, 5, " th"), rewound(1.55, 5))]
    assert rules(seen) == set()


def test_after_a_fault_hidden_text_may_come_with_the_end() -> None:
    assert rules([FAULT, *without(GOOD[7])]) == set()


def test_a_reader_that_forgot_everything_begins_where_it_says() -> None:
    seen = [*GOOD, connected(6.0, 3, fresh=True), got(6.1, 4, "reply.completed", "t-2", "Hello you")]
    assert rules(seen) == set()


BAD_RECORDS = {
    "a number missing": ([*RECORD[:8], *RECORD[9:]], "gap"),
    "a message twice": ([*RECORD, msgspec.structs.replace(RECORD[1], seq=11, turn="t-11")], "doubled"),
    "an end twice": ([*RECORD[:8], msgspec.structs.replace(RECORD[3], seq=9), RECORD[9]], "doubled"),
    "a turn without an end": ([*RECORD[:6]], "unfinished"),
    "an end without a turn": ([*RECORD, Entry(seq=11, type="reply.failed", turn="t-11")], "unrecorded"),
    "a reply while another is under way": (
        [*RECORD[:3], msgspec.structs.replace(RECORD[5], seq=4), *RECORD[4:]],
        "overlap",
    ),
    "the agent talks while a person does": (
        [*RECORD, Entry(seq=11, type="reply.started", turn="t-11")],
        "silence",
    ),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_what_should_not_be_in_the_record(name: str) -> None:
    record, rule = BAD_RECORDS[name]
    assert rule in rules([], record)
