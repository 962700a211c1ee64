"""Tools as text: how a model without a protocol of its own is told of them, and its calls found in what it
says.

The tags are those of Hermes, Qwen and SmolLM2: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from flotilla.core.generation import ChatMessage, Prompt, ToolCall, ToolSpec
from models.structured import Schema, forced_tool, parameters_of, schema_of, tools_of

OPEN, CLOSE = "<tool_call>", "</tool_call>"


# -- to the model


def constraint(prompt: Prompt) -> str:
    """The JSON Schema, as JSON text, that the whole reply has to fit; "" if it is free.

    With a schema and tools that may be called, the reply is either."""
    answer, tools = schema_of(prompt), tools_of(prompt)
    forced = forced_tool(prompt)
    must = bool(forced) or prompt.tool_choice == "required"
    if answer is None and not must:
        return ""
    if answer is not None and not tools:
        return json.dumps(answer)
    choices = (forced,) if forced else tools
    return json.dumps(_either(choices, None if must else answer))


def _either(tools: Sequence[ToolSpec], answer: Schema | None) -> Schema:
    parts = {f"t{number}": _arguments(tool) for number, tool in enumerate(tools)}
    calls = [_call(tool.name, f"t{number}") for number, tool in enumerate(tools)]
    if answer is not None:
        parts["answer"] = answer
        calls.append({"$ref": "#/$defs/answer"})
    moved = {name: _moved(schema, f"#/$defs/{name}") for name, schema in parts.items()}
    return {"$defs": moved, **(calls[0] if len(calls) == 1 else {"anyOf": calls})}


def _call(name: str, arguments: str) -> Schema:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": {"$ref": f"#/$defs/{arguments}"}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _arguments(tool: ToolSpec) -> Schema:
    return {"type": "object"} | parameters_of(tool)


def _moved(schema: Any, to: str) -> Any:
    """`schema` with its references to its own root led to where it stands now."""
    if isinstance(schema, list):
        return [_moved(item, to) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, to) for key, value in schema.items()}
    ref = moved.get("$ref")
    return moved | {"$ref": to + ref[1:]} if isinstance(ref, str) and ref.startswith("#") else moved


def instructions(tools: Sequence[ToolSpec]) -> str:
    """What a model whose template knows of no tools is told in the system's turn."""
    listed = "\n".join(json.dumps(described(tool), ensure_ascii=False) for tool in tools)
    return (
        "You can call these tools. Each is a line of JSON with its name, what it does and the JSON Schema of "
        f"its arguments:\n{listed}\n"
        f"To call one, write nothing but {OPEN}{{"
        '"name": NAME, "arguments": {…}'
        f"}}{CLOSE}. Call a tool only if the answer needs it; otherwise answer in words."
    )


def described(tool: ToolSpec) -> dict[str, Any]:
    """As chat templates want it."""
    function = {"name": tool.name, "description": tool.description, "parameters": parameters_of(tool)}
    return {"type": "function", "function": function}


def in_words(message: ChatMessage) -> tuple[str, str]:
    """Role and text of a message for a template that knows of no tools."""
    if message.role == "tool":
        return "user", f"<tool_response>\n{message.text}\n</tool_response>"
    return message.role, "\n".join([message.text] * bool(message.text) + [spelled(c) for c in message.calls])


def spelled(call: ToolCall) -> str:
    return f'{OPEN}{{"name": {json.dumps(call.name)}, "arguments": {call.arguments or "{}"}}}{CLOSE}'


# -- from the model


class ToolReader:
    """Takes calls out of a stream of text. What may be the beginning of one is held back.

    A call is a block between the tags, or a whole reply that is one bare JSON object that
    names a known tool. What turns out to be no call is shown as it was written.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._held = ""
        self._begun = False
        self.calls: tuple[ToolCall, ...] = ()

    def take(self, text: str) -> str:
        """What can be shown by now."""
        self._held += text
        if not self._begun:
            if self._held.lstrip()[:1] in ("", "{"):
                return ""  # perhaps a bare call: known at the end
            self._begun = True
        shown = ""
        while (at := self._held.find(OPEN)) >= 0:
            end = self._held.find(CLOSE, at)
            shown, self._held = shown + self._held[:at], self._held[at:]
            if end < 0:
                return shown
            shown += self._block(len(OPEN), end - at)
        keep = _beginning_of(OPEN, self._held)
        shown, self._held = shown + self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def end(self) -> str:
        """What is left to show, once the text has ended."""
        rest, self._held = self._held, ""
        calls: tuple[ToolCall, ...] = ()
        if not self._begun:
            calls = self._read(rest)
        elif rest.startswith(OPEN):  # the last block was not closed
            calls = self._read(rest.removeprefix(OPEN))
        self.calls += calls
        return "" if calls else rest

    def _block(self, start: int, end: int) -> str:
        """Takes the block that `_held` begins with, and gives back what of it is no call."""
        inner, self._held = self._held[start:end], self._held[end + len(CLOSE) :]
        calls = self._read(inner)
        self.calls += calls
        return "" if calls else f"{OPEN}{inner}{CLOSE}"

    def _read(self, text: str) -> tuple[ToolCall, ...]:
        """The calls that `text` is; none if it is anything else."""
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            return ()
        calls = [self._call(item) for item in (said if isinstance(said, list) else [said])]
        known = [call for call in calls if call is not None]
        return tuple(known) if len(known) == len(calls) else ()

    def _call(self, said: Any) -> ToolCall | None:
        if not isinstance(said, dict) or said.get("name") not in self._names:
            return None
        arguments = said.get("arguments", said.get("parameters", {}))
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return ToolCall(id=f"call_{uuid4().hex}", name=said["name"], arguments=text)


def _beginning_of(tag: str, text: str) -> int:
    """How many characters at the end of `text` could begin `tag`."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:n])), 0)
