"""What clients send about models, checked: the same words as in the record, and no others.

The messages of a model's actor are msgspec structs; what they say of themselves is what is checked here, so
that a field is described once. Unknown fields are refused at any depth, with the path to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from msgspec import inspect

from flotilla.core.errors import Refused
from flotilla.core.policy.admission import PERSON_CHARACTERS_MAX
from flotilla.core.swap_orders import GateSet, SwapOrder

T = TypeVar("T", bound=msgspec.Struct)

DEPTH_MAX = 64

_WHERE = re.compile(r" - at `\$\.?(.*)`$")
_INDEX = re.compile(r"\[(\d+)\]")


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """`by` is the person who asks, for the record; the key's tenant is put in front of it."""

    by: str = ""


class ServeBody(Body, frozen=True, kw_only=True):
    """How many replicas there are to be, with which resources each, and who stands in when none can answer;
    what is left out stays as it is."""

    version: str = ""
    least: int | None = None
    most: int | None = None
    cpus: float | None = None
    gpus: float | None = None
    fallbacks: tuple[str, ...] | None = None


class SwapBody(Body, frozen=True, kw_only=True):
    to: str
    order: SwapOrder = SwapOrder()


class SteerBody(Body, frozen=True, kw_only=True):
    reason: str = ""


class ResumeBody(Body, frozen=True, kw_only=True):
    """`at` is where the swap was when the asker saw it; 0 for wherever it is."""

    at: int = 0


class EvaluationBody(Body, frozen=True, kw_only=True):
    """`against` is the version to compare with; "" for none."""

    version: str
    gate: GateSet
    against: str = ""


async def read(request: Request, type: type[T]) -> T:
    """The body of a request; an empty one stands for `{}`. Raises `Refused` with the field at fault."""
    return checked(decoded(await request.body()), type)


def decoded(content: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(content or b"{}", type=dict[str, Any])
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused("The body is no JSON object.", field="body", next="Send a JSON object.") from None


def _too_deep() -> Refused:
    return Refused("The body is nested too deeply.", field="body", next="Send a flatter one.")


def checked(raw: dict[str, Any], type: type[T]) -> T:
    if path := next(_unsendable(raw, ""), None):
        raise Refused(f"`{path}` has more than 64 bits.", field=path, next="Send a smaller number.")
    try:
        value = msgspec.convert(raw, type, strict=True)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None
    if unknown := next(_unknown(raw, inspect.type_info(type), ""), None):
        raise Refused(f"There is no field `{unknown}`.", field=unknown, next="Leave it out, or see /docs.")
    if len(by := getattr(value, "by", "")) > PERSON_CHARACTERS_MAX:
        raise Refused(f"`by` has {len(by)} characters.", field="by", next="Send a name.")
    return value


def _unsendable(raw: Any, path: str, depth: int = 0) -> Iterator[str]:
    """Paths of whole numbers that JSON has and no frame and no column takes. What is nested too deeply is
    refused: recorded, it might not be read again."""
    if depth > DEPTH_MAX:
        raise _too_deep()
    match raw:
        case int() if not -(2**63) <= raw < 2**63:
            yield path
        case dict() | list():
            each = raw.items() if isinstance(raw, dict) else enumerate(raw)
            for name, value in each:
                yield from _unsendable(value, f"{path}.{name}" if path else str(name), depth + 1)
        case _:
            return


def _misfit(said: str) -> Refused:
    """msgspec says where: `… - at `$.order.steps[0].hold_s``; or, of what is missing, what."""
    found = _WHERE.search(said)
    path = _INDEX.sub(r".\1", found[1]) if found else ""
    if missing := re.search(r"missing required field `(\w+)`", said):
        path = f"{path}.{missing[1]}" if path else missing[1]
    text = _WHERE.sub("", said)
    return Refused(
        f"`{path}`: {text}." if path else f"{text}.", field=path or "body", next="See /docs for what fits."
    )


def _unknown(raw: Any, type: inspect.Type, path: str) -> Iterator[str]:
    """Paths of the fields that no struct has."""
    match type:
        case inspect.StructType(fields=fields) if isinstance(raw, dict):
            known = {field.encode_name: field.type for field in fields}
            for name, value in raw.items():
                here = f"{path}.{name}" if path else str(name)
                if name in known:
                    yield from _unknown(value, known[name], here)
                else:
                    yield here
        case inspect.UnionType(types=types):
            for each in types:
                yield from _unknown(raw, each, path)
        case inspect.ListType() | inspect.VarTupleType() if isinstance(raw, list):
            for n, item in enumerate(raw):
                yield from _unknown(item, type.item_type, f"{path}.{n}" if path else str(n))
        case _:
            return
