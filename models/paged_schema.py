"""Schemas are looked at before the engine sees them: one that can't be compiled is refused, with its field."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from flotilla.core.errors import Refused
from flotilla.core.generation import Prompt
from models.tool_text import constraint

SCHEMA_BYTES_MAX = 64 * 1024
"""Compiling takes longer than it grows: 3 s for an enumeration of 200 kB."""


def checked_constraint(prompt: Prompt) -> str:
    """The JSON Schema that the reply has to fit, "" if it is free. Compiling takes milliseconds the first
    time. Raises `Refused`."""
    field = "schema" if prompt.schema else "tools"
    try:
        schema = constraint(prompt)
        why = _problem(schema) if schema else ""
    except RecursionError:
        schema, why = "{}", "it is nested too deeply."
    if not schema:
        return ""
    if prompt.said:
        raise Refused(
            "A reply with a schema or with tools can't be gone on with.",
            field="said",
            next="Have it made again, from the beginning.",
        )
    if why:
        raise Refused(
            f"The engine can't hold a reply to this {field}: {why}",
            field=field,
            next="Use the parts of JSON Schema that describe a value's type, properties, items and choices.",
        )
    return schema


@lru_cache(maxsize=512)
def _problem(schema: str) -> str:
    """Why it can't be compiled; "" if it can."""
    if len(schema) > SCHEMA_BYTES_MAX:
        return f"it has {len(schema)} bytes, {SCHEMA_BYTES_MAX} are the limit."
    if outside := next((ref for ref in _refs(msgspec.json.decode(schema)) if not ref.startswith("#")), None):
        return f"it refers to {outside}, outside of itself."
    return _compiler_says(schema)


def _refs(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict) and isinstance(ref := schema.get("$ref"), str):
        yield ref
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _refs(inner)


def _compiler_says(schema: str) -> str:
    """The check that vLLM makes of a request, and the compiler that its engine uses."""
    from vllm import SamplingParams  # noqa: PLC0415  (see `paged_start.import_vllm`)
    from vllm.sampling_params import StructuredOutputsParams  # noqa: PLC0415
    from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar  # noqa: PLC0415

    asked = SamplingParams(structured_outputs=StructuredOutputsParams(json=schema))
    try:
        validate_xgrammar_grammar(asked)
    except Exception as error:  # its own, xgrammar's RuntimeError, a RecursionError
        return str(error)
    return ""
