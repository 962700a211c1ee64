"""Tools: what agents may do in the world.

A tool is an object at the top level of a module. The folder is the registry: `tools_in("our.tools")` finds
those of every module in the package `our.tools`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

from flotilla.core.errors import NotFound, Refused

_TYPES: dict[str, Any] = {
    "string": str,
    "number": int | float,
    "integer": int,
    "boolean": bool,
    "array": list,
    "object": dict,
}


@runtime_checkable
class Tool(Protocol):
    """`schema` is the JSON schema of `args`. `keyed`: the other side does what it is asked for once per
    key, however often it is asked. A tool without keys may do it again after a crash or a timeout."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def schema(self) -> dict[str, Any]: ...

    @property
    def keyed(self) -> bool: ...

    async def call(self, args: dict[str, Any], key: str) -> Any:
        """A JSON value. Raises `Refused` for what no further try can mend, and `Unavailable` or `Overloaded`,
        also for a timeout, where one can."""
        ...


def label(tool: Tool) -> str:
    """What to show beside the name of a tool."""
    return "exactly-once" if tool.keyed else "at-least-once"


class Toolbox:
    """Tools by their name."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __repr__(self) -> str:
        return f"<Toolbox {', '.join(f'{tool.name} ({label(tool)})' for tool in self)}>"

    def find(self, name: str) -> Tool:
        """Raises `NotFound`."""
        if tool := self._tools.get(name):
            return tool
        raise NotFound(f"There is no tool {name!r}.", next=f"Known: {', '.join(self._tools) or 'none'}.")


def check(tool: Tool, args: dict[str, Any]) -> None:
    """Raises `Refused` for arguments that the schema's first level rules out; the tool checks the rest."""
    properties: dict[str, dict[str, Any]] = tool.schema.get("properties", {})
    for field in tool.schema.get("required", ()):
        if field not in args:
            raise Refused(f"The tool {tool.name} needs {field!r}.", field=field)
    for field, value in args.items():
        if field not in properties and tool.schema.get("additionalProperties") is False:
            raise Refused(f"The tool {tool.name} takes no {field!r}.", field=field)
        wanted = _TYPES.get(properties.get(field, {}).get("type", ""), object)
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted in (int, int | float)):
            raise Refused(f"{field!r} of the tool {tool.name} has the wrong type.", field=field)


def tools_in(package: str) -> Toolbox:
    """Imports every module of the package. Raises `Refused` if two tools have the same name."""
    found: dict[str, Tool] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) or not isinstance(value, Tool):
                continue
            if found.setdefault(value.name, value) is not value:
                raise Refused(f"Two tools are called {value.name!r}.", field="name")
    return Toolbox(found.values())
