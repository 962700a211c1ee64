"""What a prompt says of the shape of its reply, read and checked before any engine sees it."""

from __future__ import annotations

from typing import Any

import msgspec

from flotilla.core.errors import Refused
from flotilla.core.generation import Prompt, ToolCall, ToolSpec

Schema = dict[str, Any]

CHOICES = ("auto", "none", "required")


def schema_of(prompt: Prompt) -> Schema | None:
    """The JSON Schema that the reply has to fit; None if there is none. Raises `Refused`."""
    return read_schema(prompt.schema, field="schema") if prompt.schema else None


def tools_of(prompt: Prompt) -> tuple[ToolSpec, ...]:
    """The tools that may be called now. Raises `Refused` for a choice that isn't among them."""
    if prompt.tool_choice == "none":
        return ()
    if prompt.tool_choice not in CHOICES and forced_tool(prompt) is None:
        names = ", ".join(tool.name for tool in prompt.tools) or "none"
        raise Refused(
            f"There is no tool {prompt.tool_choice!r} to call.",
            field="tool_choice",
            next=f"Name one of the prompt's tools ({names}), or say auto, none or required.",
        )
    if prompt.tool_choice == "required" and not prompt.tools:
        raise Refused("A tool is to be called, and there is none.", field="tools", next="Give one.")
    return prompt.tools


def forced_tool(prompt: Prompt) -> ToolSpec | None:
    """The tool that `tool_choice` names."""
    return next((tool for tool in prompt.tools if tool.name == prompt.tool_choice), None)


def parameters_of(tool: ToolSpec) -> Schema:
    return read_schema(tool.parameters or "{}", field="tools")


def read_schema(text: str, *, field: str) -> Schema:
    """Raises `Refused`, naming `field`, for what is no JSON object."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(
            f"This is no JSON Schema: {error}.", field=field, next="Send a JSON object, as JSON text."
        ) from error


def arguments_of(call: ToolCall) -> Schema:
    """The arguments of a call that was made before. Raises `Refused` if they are no JSON object."""
    try:
        return msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(
            f"The arguments of {call.name!r} are no JSON object: {error}.",
            field="messages",
            next="Send them as they were made.",
        ) from error
