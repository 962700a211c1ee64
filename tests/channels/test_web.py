"""What a browser says on its socket: read, or refused with the field at fault."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels import web
from flotilla.core.errors import Refused

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NEARLY = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "interrupt", "typing", "ping", "x", 1, None])},
    optional={"id": JSON, "text": JSON, "x": JSON},
)


def parse(text: str) -> web.Frame | Refused:
    try:
        return web.parse(text)
    except Refused as refused:
        assert refused.next and str(refused)
        return refused


@given(st.text(max_size=50))
def test_any_text_is_read_or_refused(text: str) -> None:
    parse(text)


@settings(max_examples=200)
@given(JSON | NEARLY)
def test_any_json_is_read_or_refused(value: object) -> None:
    frame = parse(json.dumps(value))
    if isinstance(frame, web.Message):
        assert frame == web.Message(id=value["id"], text=value["text"])  # type: ignore[index]


@given(st.text(), st.text())
def test_a_message_comes_out_as_it_went_in(id: str, text: str) -> None:
    sent = json.dumps({"type": "message", "id": id, "text": text}, ensure_ascii=True)
    frame = parse(sent)
    assert frame == web.Message(id=id, text=text)


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ('{"type":"interrupt"}', web.Interrupt()),
        (
            '{"type":"message","id":"c","text":"x","while_talking":"merge"}',
            web.Message(id="c", text="x", while_talking="merge"),
        ),
        ('{"type":"message","id":"c","text":"x","while_talking":null}', web.Message(id="c", text="x")),
        (' {"type": "typing", "since": 5}\n', web.Typing()),
        ('{"n":[{}],"type":"ping"}', web.Ping()),
    ],
)
def test_frames_are_read_and_unknown_fields_ignored(text: str, frame: web.Frame) -> None:
    assert web.parse(text) == frame


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"type":"message","id":"c","text":5}', "text"),
        ('{"type":"message","id":null,"text":"x"}', "id"),
        ('{"type":"message","id":"c","text":"x","while_talking":"shout"}', "while_talking"),
        ('{"type":"message","id":"c","text":"x","while_talking":1}', "while_talking"),
        ('{"type":"shout"}', "type"),
        ('{"type":"message"}', None),
        ("", None),
        ("[]", None),
        ("{", None),
        ('{"type":"ping"} {}', None),
        ('{"type":"message","id":"c","text":"\ud800"}', None),
        ("\x00", None),
    ],
)
def test_a_frame_that_cannot_be_read_names_the_field_at_fault(text: str, field: str | None) -> None:
    refused = parse(text)
    assert isinstance(refused, Refused) and refused.field == field


def test_half_a_surrogate_pair_does_not_get_in() -> None:
    """It has no UTF-8 form, so nothing behind the socket could carry it."""
    frame = parse('{"type":"message","id":"c","text":"\\ud800"}')
    assert isinstance(frame, Refused) or frame.text.encode()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"type":"ping","x":' + "[" * 100_000, '{"a":' * 100_000, "9" * 100_000],
    ids=["lists", "ping", "objects", "digits"],
)
def test_deep_or_long_junk_is_refused_in_no_time(text: str) -> None:
    begun = time.process_time()
    try:
        frame = parse(text)
    except RecursionError:
        frame = None  # its traceback would break pytest's own
    assert isinstance(frame, Refused), "RecursionError gets out of parse"
    assert time.process_time() - begun < 0.5
