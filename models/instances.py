"""A small value that fits a JSON Schema, made by chance from a seed.

Knows what schemas of replies and tools are made of: types, enum, const, anyOf, oneOf, allOf, `$ref` within the
schema, required and bounds. What it can't fit for certain (a pattern, say) it refuses.
"""

from __future__ import annotations

import math
import random
from typing import Any, cast

from flotilla.core.errors import Refused, Unsupported

DEPTH_MAX = 24
"""A schema that asks for more never ends."""
OPTIONAL_DEPTH_MAX = 3
"""Past it only what is required is made."""
ITEMS_MAX = 1000
SPAN = 100
"""Of numbers that are bounded on one side or on none."""

FORMATS = {
    "date": "2026-11-22",
    "time": "12:00:00Z",
    "date-time": "2026-11-22T12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "7b1c9a52-0d5e-4c1b-9f57-2f3f0d6f8f4e",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
}
WORDS = ("account", "branch", "card", "deposit", "fee", "limit", "payment", "rate", "statement", "transfer")

Node = dict[str, Any]


def instance(schema: Node, seed: bytes, *, field: str = "schema") -> Any:
    """Raises `Refused`, naming `field`, for a schema that nothing fits or that can't be read; `Unsupported`
    for one that is beyond this module."""
    try:
        return _Maker(schema, random.Random(seed), field).make(schema, 0)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:  # "minimum": "three"
        said = f"The JSON Schema says something with a value of the wrong type ({error})."
        raise Refused(said, field=field, next="Mend the schema.") from error


class _Maker:
    def __init__(self, root: Node, chance: random.Random, field: str) -> None:
        self._root, self._chance, self._field = root, chance, field

    def make(self, schema: Any, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise self._refused("asks for something that never ends")
        node = self._node(schema)
        if "$ref" in node:
            return self.make(self._target(node["$ref"]), depth + 1)
        if "const" in node:
            return node["const"]
        if "enum" in node:
            return self._chance.choice(self._filled(node, "enum"))
        for key in ("anyOf", "oneOf"):
            if key in node:
                return self._one_of(self._filled(node, key), depth)
        if "allOf" in node:
            return self.make(self._merged(node), depth + 1)
        return self._typed(node, depth)

    def _node(self, schema: Any) -> Node:
        if schema is True:
            return {}
        if not isinstance(schema, dict):
            raise self._refused(
                "lets nothing fit" if schema is False else f"has {schema!r} in place of a schema"
            )
        return cast(Node, schema)

    def _filled(self, node: Node, key: str) -> list[Any]:
        if not isinstance(node[key], list) or not node[key]:
            raise self._refused(f"has an {key} that is no list with something in it")
        return node[key]

    def _one_of(self, choices: list[Any], depth: int) -> Any:
        """The first that can be made: deep down that is the one that ends."""
        for choice in choices[:-1]:
            try:
                return self.make(choice, depth + 1)
            except Refused:
                continue
        return self.make(choices[-1], depth + 1)

    def _merged(self, node: Node) -> Node:
        merged: Node = {key: value for key, value in node.items() if key != "allOf"}
        for part in self._filled(node, "allOf"):
            found = self._node(part)
            while "$ref" in found:
                found = self._node(self._target(found["$ref"]))
            properties = {**merged.get("properties", {}), **found.get("properties", {})}
            required = [*merged.get("required", ()), *found.get("required", ())]
            merged = merged | found | ({"properties": properties, "required": required} if properties else {})
        return merged

    def _target(self, reference: Any) -> Any:
        at: Any = self._root
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise self._refused(f"refers to {reference!r}, outside of itself")
        for step in reference[1:].split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(at, dict) or key not in at:
                raise self._refused(f"refers to {reference!r}, which isn't there")
            at = cast(Node, at)[key]
        return at

    def _typed(self, node: Node, depth: int) -> Any:
        match self._type(node):
            case "object":
                return self._object(node, depth)
            case "array":
                return self._array(node, depth)
            case "integer":
                return self._integer(node)
            case "number":
                return self._number(node)
            case "boolean":
                return self._chance.random() < 0.5
            case "null":
                return None
            case "string":
                return self._string(node)
            case other:
                raise self._refused(f"has the type {other!r}, which JSON doesn't have")

    def _type(self, node: Node) -> Any:
        kind = node.get("type")
        if isinstance(kind, list):
            return next((k for k in cast("list[Any]", kind) if k != "null"), "null")
        if kind is not None:
            return kind
        hints = {"properties": "object", "required": "object", "items": "array", "prefixItems": "array"}
        return next((hints[key] for key in hints if key in node), "string")

    def _object(self, node: Node, depth: int) -> Node:
        properties = self._node(node.get("properties", {}))
        required = cast("list[str]", node.get("required", []))
        optional = [key for key in properties if key not in required and depth < OPTIONAL_DEPTH_MAX]
        made = {key: self.make(properties.get(key, True), depth + 1) for key in (*required, *optional)}
        more = node.get("additionalProperties", True)
        for number in range(min(int(node.get("minProperties", 0)), ITEMS_MAX) - len(made)):
            made[f"key{number}"] = self.make(more, depth + 1)
        return made

    def _array(self, node: Node, depth: int) -> list[Any]:
        heads = cast("list[Any]", node.get("prefixItems", []))
        least = max(int(node.get("minItems", 0)), len(heads))
        wanted = least if depth >= OPTIONAL_DEPTH_MAX else max(1, least)
        count = min(wanted, int(node.get("maxItems", wanted)))
        if count > ITEMS_MAX:
            raise self._refused(f"asks for {count} items; {ITEMS_MAX} are the most")
        made = [self.make(head, depth + 1) for head in heads[:count]]
        while len(made) < count:
            made.append(self._item(node, made, depth))
        return made

    def _item(self, node: Node, before: list[Any], depth: int) -> Any:
        for _ in range(100):
            made = self.make(node.get("items", True), depth + 1)
            if not node.get("uniqueItems") or made not in before:
                return made
        raise self._refused("asks for more different items than there are")

    def _string(self, node: Node) -> str:
        if "pattern" in node:
            raise Unsupported(
                "The scripted engine can't fit a pattern.", field=self._field, next="Leave it out."
            )
        if node.get("format") in FORMATS:
            return FORMATS[node["format"]]
        least, most = int(node.get("minLength", 0)), int(node.get("maxLength", 1 << 16))
        if least > most:
            raise self._refused("has a minLength above its maxLength")
        text = self._chance.choice(WORDS)
        while len(text) < least:
            text += " " + self._chance.choice(WORDS)
        return text[:most] if len(text) > most else text

    def _integer(self, node: Node) -> int:
        low, high = self._bounds(node, 1)
        step = node.get("multipleOf", 1)
        first, last = math.ceil(low / step), math.floor(high / step)
        if first > last:
            raise self._refused("has bounds that no number is within")
        return round(self._chance.randint(first, last) * step)

    def _number(self, node: Node) -> float:
        low, high = self._bounds(node, 1e-6)
        step = node.get("multipleOf", 0)
        first = math.ceil(low / step) * step if step else low
        if first > high:
            raise self._refused("has bounds that no number is within")
        if step:
            return first
        return min(high, max(low, round(self._chance.uniform(low, high), 2)))

    def _bounds(self, node: Node, open_by: float) -> tuple[float, float]:
        """The least and the greatest number; `open_by` keeps clear of bounds that are exclusive."""
        lows = [node["minimum"]] if "minimum" in node else []
        lows += [node["exclusiveMinimum"] + open_by] if "exclusiveMinimum" in node else []
        highs = [node["maximum"]] if "maximum" in node else []
        highs += [node["exclusiveMaximum"] - open_by] if "exclusiveMaximum" in node else []
        if lows:
            return max(lows), min(highs, default=max(lows) + SPAN)
        high = min(highs, default=SPAN)
        return min(0, high - SPAN), high

    def _refused(self, what: str) -> Refused:
        return Refused(f"The JSON Schema {what}.", field=self._field, next="Mend the schema.")
