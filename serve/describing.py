"""The OpenAPI document, with what every operation answers besides its success: problem documents, where FastAPI
would tell of an error that it never sends."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from serve import openai_errors
from serve.linking import add_links

_TEXT = {"type": "string"}
_PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457. `field` is what was wrong, `next` the next move.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": _TEXT | {"format": "uri"},
        "title": _TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": _TEXT,
        "field": _TEXT,
        "next": _TEXT,
        "retry_after_s": {"type": "number"},
        "request_id": _TEXT,
    },
}
_OPENAI_ERROR: dict[str, Any] = {
    "title": "OpenAIError",
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "object", "required": ["message", "type", "param", "code"]}},
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer"}}}
_UNUSED = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI) -> None:
    """Has `app.openapi` tell it."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        made = app.openapi_schema is None
        document = plain()
        if made:
            _complete(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _UNUSED:
        schemas.pop(name, None)
    schemas |= {"Problem": _PROBLEM, "OpenAIError": _OPENAI_ERROR}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _add_errors(path, operation["responses"])
    add_links(document)


def _add_errors(path: str, responses: dict[str, Any]) -> None:
    """Those that an operation declares by itself stay."""
    responses.pop("422", None)
    content = _content(path)
    later = {"description": "Not now: try again.", "content": content, "headers": _RETRY_AFTER}
    for status in ("503", "504"):
        responses.setdefault(status, later)
    responses["4XX"] = {"description": "The request can't be taken as it is.", "content": content}


def _content(path: str) -> dict[str, Any]:
    if path.startswith(openai_errors.PREFIX):
        return {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
    return {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
