"""However connections break, repeat and lose things, a reader sees one conversation."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla.client.events import (
    Accepted,
    Beginning,
    Closed,
    Completed,
    Delta,
    Denied,
    Failed,
    Interrupted,
    Known,
    Message,
    Noted,
    Other,
    Piece,
    Rewound,
    Said,
    Started,
    Stopped,
    Trouble,
    convert,
    read,
)
from flotilla.client.reading import Gap, Reader
from flotilla.core.errors import Problem, Refused, Undecodable

AT = "2026-11-22T09:00:00.000Z"
PROBLEM = Problem(type="t", title="Broken", status=500, detail="It broke.")
texts = st.text(alphabet="ab日🙂 ", max_size=12)


def accepted(seq: int, turn: str) -> Accepted:
    return Accepted(seq=seq, turn=turn, at=AT, message=Message(id=f"m{seq}", text="?"))


def started(seq: int, turn: str) -> Started:
    return Started(seq=seq, turn=turn, at=AT, beginning=Beginning(model="m@1"))


def completed(seq: int, turn: str, text: str) -> Completed:
    return Completed(seq=seq, turn=turn, at=AT, said=Said(text=text))


def delta(offset: int, text: str, seq: int = 1, turn: str = "t") -> Delta:
    return Delta(seq=seq, turn=turn, piece=Piece(offset=offset, text=text))


def screen(events: list[object]) -> dict[str, str]:
    """What a client has shown of each turn, that joins deltas blindly. Asserts that none leaves a gap."""
    shown: dict[str, str] = {}
    for event in events:
        match event:
            case Rewound():
                shown[event.turn] = shown.get(event.turn, "")[: event.offset]
            case Delta():
                assert event.offset == len(shown.get(event.turn, ""))
                shown[event.turn] = shown.get(event.turn, "") + event.text
            case _:
                pass
    return shown


# -- a fleet in a few lines: what it tells behind a place, at each moment of its history


class Past:
    """A history of turns. `moments` are the states that it went through: what is recorded, and what is said."""

    def __init__(self, turns: list[tuple[str, list[str], int]]) -> None:
        self.record: list[Known] = []
        self.moments: list[tuple[int, str, str, int]] = []  # recorded, turn, its text, its question's seq
        for number, (kind, pieces, back) in enumerate(turns):
            self._turn(f"t{number}", kind, pieces, back)
        self.record.append(Closed(seq=len(self.record) + 1, at=AT))
        self.moments.append((len(self.record), "", "", 0))

    def _turn(self, turn: str, kind: str, pieces: list[str], back: int) -> None:
        asked = len(self.record) + 1
        self.record += [accepted(asked, turn), started(asked + 1, turn)]
        text = ""
        for number, piece in enumerate(pieces):
            text += piece
            self.moments.append((len(self.record), turn, text, asked))
            if number == len(pieces) // 2 and back:  # a host dies, and another says it otherwise
                text = text[:-back]
                self.moments.append((len(self.record), turn, text, asked))
        seq = len(self.record) + 1
        ends = {
            "completed": completed(seq, turn, text),
            "interrupted": Interrupted(seq=seq, turn=turn, at=AT, stopped=Stopped(text=text)),
            "failed": Failed(seq=seq, turn=turn, at=AT, trouble=Trouble(problem=PROBLEM)),
        }
        self.record.append(ends[kind])
        self.moments.append((seq, "", "", 0))

    def told(self, place: str, first: int, last: int) -> list[Known]:
        """What one connection says that is opened at `place` in moment `first`, and lives until `last`."""
        seq, _, offset = place.partition(":")
        after, shown, out = int(seq), int(offset or 0), list[Known]()
        for recorded, turn, text, asked in self.moments[first : last + 1]:
            for event in self.record[after:recorded]:
                shown = shown if isinstance(event, Accepted | Closed) else 0
                out.append(event)
            after = max(after, recorded)
            if turn and len(text) < shown:
                shown = len(text)
                out.append(Rewound(seq=asked, turn=turn, piece=Piece(offset=shown)))
            if turn and len(text) > shown:
                out.append(delta(shown, text[shown:], asked, turn))
                shown = len(text)
        return out


turns = st.tuples(
    st.sampled_from(["completed", "interrupted", "failed"]),
    st.lists(texts.filter(bool), min_size=1, max_size=6),
    st.integers(0, 5),
)


def spoilt(events: list[Known], random: Random, lost: set[int]) -> list[Known | Other]:
    """Some twice, some never, some that nobody knows, and what remains is cut somewhere. Of the record each
    is lost once at most: what is not there when it was asked for again is not for this reader."""
    out: list[Known | Other] = []
    for event in events:
        if random.random() < 0.15 and (not event.at or event.seq not in lost):
            lost |= {event.seq} if event.at else set()
            continue
        out.append(event)
        if random.random() < 0.2:
            out.append(random.choice(out))
        if random.random() < 0.1:
            out.append(Other(seq=event.seq, type="weather.changed"))
    return out[: random.randrange(len(out) + 1)] if random.random() < 0.5 else out


def read_through(past: Past, seed: int) -> list[object]:
    """Connection after connection, each opened at the reader's place, until the session is closed."""
    random, reader, now, seen = Random(seed), Reader(), 0, list[object]()
    lost = set[int]()
    for _ in range(2_000):
        last = min(len(past.moments) - 1, now + random.randrange(1, 6))
        try:
            for event in spoilt(past.told(reader.place, now, last), random, lost):
                seen += reader.take(event)
        except Gap:
            continue
        if reader.seq == len(past.record):
            return seen
        now = last if random.random() < 0.7 else now
    raise AssertionError("it never ended")


@given(st.lists(turns, max_size=5), st.integers(0, 2**32))
def test_whatever_breaks_a_reader_sees_one_conversation(
    history: list[tuple[str, list[str], int]], seed: int
) -> None:
    past = Past(history)
    seen = read_through(past, seed)
    durable = [event for event in seen if getattr(event, "at", "")]
    assert durable == past.record  # each once, in order
    shown = screen(seen)
    for event in past.record:
        match event:
            case Completed():
                assert shown.get(event.turn, "") == event.said.text
            case Interrupted():
                assert shown.get(event.turn, "") == event.stopped.text
            case _:
                pass


@given(st.lists(turns, min_size=1, max_size=3), st.data())
def test_a_reader_that_goes_on_from_a_place_sees_what_the_first_did_not(
    history: list[tuple[str, list[str], int]], data: st.DataObject
) -> None:
    past = Past(history)
    whole = past.told("0", 0, len(past.moments) - 1)
    first = Reader()
    cut = data.draw(st.integers(0, len(whole)))
    before = [shown for event in whole[:cut] for shown in first.take(event)]
    second = Reader(first.place)
    # Opened at the moment at which the first had come so far, as after a restart of the client.
    after = [shown for event in whole[cut:] for shown in second.take(event)]
    assert [*before, *after] == whole


# -- one case each


def test_an_honest_stream_is_passed_on_as_it_is() -> None:
    past = Past([("completed", ["Hel", "lo"], 0), ("interrupted", ["Bye"], 1)])
    told = past.told("0", 0, len(past.moments) - 1)
    reader = Reader()
    assert [shown for event in told for shown in reader.take(event)] == told
    assert reader.place == str(len(past.record))


def test_the_place_counts_the_characters_of_the_reply_under_way() -> None:
    reader = Reader()
    for event in (accepted(1, "t"), started(2, "t"), delta(0, "日本🙂")):
        reader.take(event)
    assert reader.place == "2:3"
    reader.take(accepted(3, "u"))  # one more message, while the agent talks
    assert reader.place == "3:3"
    reader.take(completed(4, "t", "日本🙂"))
    assert reader.place == "4"


def test_text_that_comes_twice_is_shown_once() -> None:
    reader = Reader("2:5")
    assert reader.take(delta(0, "Hello")) == ()
    assert reader.take(delta(3, "lo wor")) == (delta(5, " wor"),)
    assert reader.take(delta(5, " wo")) == ()
    assert reader.take(delta(9, "ld")) == (delta(9, "ld"),)


def test_text_that_came_otherwise_is_taken_back() -> None:
    reader = Reader("2")
    reader.take(delta(0, "Hello moon"))
    rewound, new = reader.take(delta(4, "o world"))
    assert rewound == Rewound(seq=1, turn="t", piece=Piece(offset=6))
    assert new == delta(6, "world")
    assert reader.text == "Hello world"


def test_missing_text_is_asked_for_once_and_then_brought_by_the_end() -> None:
    reader = Reader("2")
    reader.take(delta(0, "Hello"))
    with pytest.raises(Gap):
        reader.take(delta(9, "ld"))
    assert reader.take(delta(9, "ld")) == ()  # nobody has it
    assert reader.take(completed(3, "t", "Hello world")) == (
        Delta(seq=3, turn="t", piece=Piece(offset=5, text=" world")),
        completed(3, "t", "Hello world"),
    )


def test_a_missing_event_is_asked_for_once_and_then_it_is_not_for_this_reader() -> None:
    reader = Reader("4")
    note = Noted(seq=6, at=AT, message=Message(id="n", text="a note"))
    with pytest.raises(Gap):
        reader.take(note)
    assert reader.take(note) == (note,)


def test_of_one_turn_alone_events_are_missing_as_a_matter_of_course() -> None:
    reader = Reader(whole=False)
    assert reader.take(accepted(7, "t")) == (accepted(7, "t"),)
    assert reader.take(started(12, "t")) == (started(12, "t"),)


def test_a_reply_that_is_begun_again_is_taken_back_first() -> None:
    reader = Reader()
    for event in (accepted(1, "t"), started(2, "t"), delta(0, "One")):
        reader.take(event)
    assert reader.take(started(3, "t")) == (
        Rewound(seq=1, turn="t", piece=Piece(offset=0)),
        started(3, "t"),
    )
    assert reader.take(delta(0, "Two")) == (delta(0, "Two"),)


def test_text_of_a_reply_that_has_ended_is_of_before() -> None:
    reader = Reader()
    for event in (accepted(1, "t"), started(2, "t"), delta(0, "One"), completed(3, "t", "One")):
        reader.take(event)
    assert reader.take(delta(0, "One")) == ()
    assert reader.take(Rewound(seq=1, turn="t", piece=Piece(offset=0))) == ()


def test_what_is_of_the_moment_is_passed_on_and_changes_no_place() -> None:
    reader = Reader("4")
    typing, denied = Other(seq=4, type="typing"), Denied(id="m", problem=PROBLEM)
    assert reader.take(typing) == (typing,) and reader.take(denied) == (denied,)
    assert reader.place == "4"


def test_an_unknown_type_of_the_record_counts_like_any_other() -> None:
    reader = Reader("4")
    event = Other(seq=5, type="tool.called", at=AT)
    assert reader.take(event) == (event,)
    assert reader.take(event) == ()


@pytest.mark.parametrize("place", ["", "x", "-1", "1:", "1:x", ":3", "1:2:3"])
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(Refused) as refused:
        Reader(place)
    assert refused.value.field == "after"


# -- the wire's form


def test_events_are_read_by_their_types_and_unknown_ones_are_kept() -> None:
    event = read('{"seq":3,"type":"reply.delta","turn":"t","data":{"offset":2,"text":"日"},"new":1}')
    assert event == Delta(seq=3, turn="t", piece=Piece(offset=2, text="日"))
    other = read('{"seq":3,"type":"tool.called","at":"…","data":{"name":"search"}}')
    assert other == Other(seq=3, type="tool.called", at="…", data={"name": "search"})
    assert convert({"seq": 3, "type": "session.closed", "data": {}}) == Closed(seq=3)
    assert convert({"type": "weather", "data": 1}) == Other(type="weather", data=1)


@pytest.mark.parametrize(
    "json", ["", "[]", "{}", '{"seq":"x","type":"reply.delta"}', '{"seq":1,"type":"reply.delta","data":{}}']
)
def test_what_is_no_event_is_an_error_and_not_an_unknown_type(json: str) -> None:
    with pytest.raises(Undecodable):
        read(json)
