"""Calls are found in what a model says, however its text is cut into pieces; what is no call is shown."""

from __future__ import annotations

import json

import jsonschema
import pytest

from flotilla.core.generation import Prompt, ToolSpec
from models.tool_text import ToolReader, constraint

CALL = '<tool_call>{"name": "fee", "arguments": {"kind": "wire"}}</tool_call>'
BARE = '{"name": "fee", "arguments": {"kind": "wire"}}'
FEE = ToolSpec(
    name="fee",
    parameters='{"type":"object","properties":{"kind":{"$ref":"#/$defs/k"}},"required":["kind"],'
    '"$defs":{"k":{"enum":["wire","card"]}}}',
)
NOW = ToolSpec(name="now")


def read(text: str, size: int) -> tuple[str, list[str]]:
    reader = ToolReader(["fee", "now"])
    shown = "".join(reader.take(text[at : at + size]) for at in range(0, len(text), size)) + reader.end()
    return shown, [f"{call.name} {call.arguments}" for call in reader.calls]


FEE_CALL = 'fee {"kind": "wire"}'


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        ("A fee is 3 < 4.", "A fee is 3 < 4.", []),
        (CALL, "", [FEE_CALL]),
        (f"Let me see. {CALL}", "Let me see. ", [FEE_CALL]),
        (f"{CALL}\n{CALL} Done.", "\n Done.", [FEE_CALL, FEE_CALL]),
        (f"  {BARE}\n", "", [FEE_CALL]),
        (CALL.removesuffix("</tool_call>"), "", [FEE_CALL]),
        ('<tool_call>[{"name":"fee"},{"name":"now"}]</tool_call>', "", ["fee {}", "now {}"]),
        ('{"name": "weather", "arguments": {}}', '{"name": "weather", "arguments": {}}', []),
        ("<tool_call>{no json}</tool_call> Hm.", "<tool_call>{no json}</tool_call> Hm.", []),
        ("A <tool", "A <tool", []),
        ('{"a": 1} is JSON', '{"a": 1} is JSON', []),
        ("", "", []),
    ],
)
def test_calls_are_taken_out(text: str, shown: str, calls: list[str], size: int) -> None:
    assert read(text, size) == (shown, calls)


def test_text_before_a_call_is_shown_as_it_comes() -> None:
    reader = ToolReader(["fee"])
    assert [reader.take(text) for text in ("Let me ", "see.<", "tool", "_call>{")] == [
        "Let me ",
        "see.",
        "",
        "",
    ]


def test_ids_of_calls_differ() -> None:
    reader = ToolReader(["fee"])
    reader.take(CALL + CALL)
    assert len({call.id for call in reader.calls}) == 2


def schema(**settings: object) -> dict[str, object]:
    return json.loads(constraint(Prompt(**settings)) or "{}")  # type: ignore[arg-type]


def test_only_a_forced_call_constrains() -> None:
    assert schema(tools=(FEE,)) == {}
    assert schema(tools=(FEE,), tool_choice="none") == {}


def test_a_forced_call_fits_its_tool() -> None:
    wanted = schema(tools=(FEE, NOW), tool_choice="required")
    for good in ({"name": "fee", "arguments": {"kind": "wire"}}, {"name": "now", "arguments": {}}):
        jsonschema.validate(good, wanted)
    for bad in (
        {"name": "fee", "arguments": {"kind": "boat"}},
        {"name": "who", "arguments": {}},
        {"name": "now"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, wanted)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "now", "arguments": {}}, schema(tools=(FEE, NOW), tool_choice="fee"))


def test_a_schema_and_tools_allow_either() -> None:
    answer = (
        '{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}},"required":["a"],'
        '"$defs":{"x":{"type":"integer"}}}'
    )
    wanted = schema(tools=(FEE,), schema=answer)
    for good in ({"name": "fee", "arguments": {"kind": "wire"}}, {"a": 1}):
        jsonschema.validate(good, wanted)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"a": "text"}, wanted)
