"""How far a reader has come: what it has seen of a reply, and what its end still owes it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from actors.place import Place
from flotilla.views import events
from flotilla.views.events import Frame

TURN = "t_abc-7"


def durable(seq: int, type: str, **data: object) -> Frame:
    body = {"seq": seq, "type": type, "turn": TURN, "at": "2026-01-01T00:00:00.000Z", "data": data}
    return events.parse_frame(b"%d\n%b" % (seq, json.dumps(body).encode()))


def delta(offset: int, text: str) -> Frame:
    return events.parse_frame(events.delta_frame(7, TURN, offset, text))


def joined(frames: list[Frame]) -> str:
    text = ""
    for frame in frames:
        event = json.loads(frame.json)
        if event["type"] == "reply.delta":
            assert event["data"]["offset"] == len(text) and event["seq"] == 7
            text += event["data"]["text"]
    return text


@given(st.text(min_size=1), st.data())
def test_deltas_join_to_the_whole_text_though_the_last_of_them_never_came(
    text: str, data: st.DataObject
) -> None:
    """The end was recorded by another host than the one that showed the beginning."""
    text = text.encode("utf-8", "ignore").decode() or "x"
    seen = data.draw(st.integers(1, len(text)))
    place, out = Place(7, 0), []
    out += place.take(durable(8, "reply.started"))
    out += place.take(delta(0, text[:seen]))
    out += place.take(durable(9, "reply.completed", text=text))
    assert joined(out) == text
    assert [json.loads(frame.json)["type"] for frame in out][-1] == "reply.completed"
    assert out[-1].id == "9" and place.offset == 0
    assert all(frame.id == f"8:{frame.offset + frame.length}" for frame in out if frame.offset is not None)


def test_a_reader_that_resumes_in_the_middle_gets_the_rest_in_front_of_the_end() -> None:
    out = Place(8, 4).take(durable(9, "reply.interrupted", text="Hello"))
    assert [json.loads(frame.json)["data"] for frame in out] == [
        {"offset": 4, "text": "o"},
        {"text": "Hello"},
    ]


def test_of_replies_that_are_over_the_record_alone_is_told() -> None:
    place = Place(0, 0)
    assert len(place.take(durable(8, "reply.started"))) == 1
    assert len(place.take(durable(9, "reply.completed", text="Hello"))) == 1


def test_a_reply_that_failed_owes_nothing() -> None:
    assert len(Place(8, 4).take(durable(9, "reply.failed", problem={"type": "x"}))) == 1


def test_a_reader_that_was_carried_over_gets_the_text_that_was_said_meanwhile() -> None:
    place = Place(7, 0)
    place.carried = True
    out = place.take(durable(8, "reply.started")) + place.take(durable(9, "reply.completed", text="Hello"))
    assert joined(out) == "Hello" and len(out) == 3
