"""Errors in the form that OpenAI's clients read, and the route that answers with them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from flotilla.core.errors import (
    FlotillaError,
    Forbidden,
    LimitReached,
    NotFound,
    Overloaded,
    RateLimited,
    Refused,
    TooLarge,
    Unauthenticated,
)
from flotilla.core.ids import new_id
from serve.doors import doors_of
from serve.request_ids import request_id

PREFIX = "/openai/v1"
_RETRY_MOST_S = 60.0  # what clients honour of Retry-After; longer, and they would only ask in vain
_PARAMS = {"body": None, "schema": "response_format", "raw": "prompt"}  # what we call them, what they do
_TOO_LONG = "context_length_exceeded"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Invalid(Refused):
    """A request that is wrong, with the code that OpenAI's clients know it by."""

    def __init__(
        self, detail: str, *, field: str, next: str | None = None, code: str = "invalid_value"
    ) -> None:
        super().__init__(detail, field=field, next=next)
        self.code = code


def kind_of(error: FlotillaError) -> tuple[int, str, str | None]:
    """The HTTP status, the type and the code."""
    match error:
        case Invalid():
            return 400, "invalid_request_error", error.code
        case Refused(field="messages" | "raw"):  # an engine's word: what is wrong with them is found before
            return 400, "invalid_request_error", _TOO_LONG
        case Refused():
            return 400, "invalid_request_error", "invalid_value"
        case TooLarge():
            return 413, "invalid_request_error", "request_too_large"
        case Unauthenticated():
            return 401, "invalid_request_error", "invalid_api_key"
        case Forbidden():
            return 403, "permission_error", "forbidden"
        case NotFound():
            return 404, "invalid_request_error", "model_not_found" if error.field == "model" else "not_found"
        case LimitReached():
            return 429, "insufficient_quota", "insufficient_quota"
        case RateLimited():
            return 429, "rate_limit_error", "rate_limit_exceeded"
        case Overloaded():
            return 503, "server_error", "overloaded"
        case _:
            return error.status, "server_error", error.slug.replace("-", "_")


def body_of(error: FlotillaError) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`; the message says the next move."""
    _, kind, code = kind_of(error)
    param = _PARAMS.get(error.field, error.field) if error.field else None
    # LangChain knows a prompt that is too long by this word in the message.
    said = f"{error} ({code})" if code == _TOO_LONG else str(error)
    return {"error": {"message": said, "type": kind, "param": param, "code": code}}


def response(error: FlotillaError) -> Response:
    status, _, _ = kind_of(error)
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
        headers["x-should-retry"] = "true" if error.retry_after_s <= _RETRY_MOST_S else "false"
    elif status == 409:
        headers["x-should-retry"] = "false"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(body_of(error)), status, headers, media_type="application/json")


class OpenAIRoute(APIRoute):
    """Each answer has an id; each error, whoever raises it, OpenAI's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            request.state.id = new_id("req")  # our own also where the client sends one: charges go by it
            try:
                check_characters(await request.body())
                found = await handle(request)
            except Exception as error:
                found = response(_plain(request, error))
            if not request_id():  # nobody else says it
                found.headers["x-request-id"] = request.state.id
            return found

        return answer


def check_characters(body: bytes) -> None:
    """Raises `Refused` for text that has no UTF-8 form: half a surrogate pair is valid JSON, and no text."""
    if not _SURROGATE.search(body):
        return
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Refused(
            "The body has half a surrogate pair.", field="body", next="Send whole characters."
        ) from None
    except (ValueError, RecursionError):
        return  # whoever reads it next says so


def _plain(request: Request, error: Exception) -> FlotillaError:
    match error:
        case FlotillaError():
            return error
        case RequestValidationError():
            return invalid(error.errors())
        case HTTPException(status_code=400):
            return Refused("The body can't be read.", field="body", next="Send a JSON object in UTF-8.")
        case _:
            doors_of(request).log.error(
                "request.broke", path=request.url.path, request_id=request_id(), exc_info=error
            )
            return FlotillaError("The request could not be answered.", next="Try again.")


_OUTER = ("body", "query", "path")
_BRANCH = re.compile(r"[\[\]()]|^[A-Z]|^(constrained-)?str$")  # which type of a union pydantic tried


def invalid(errors: Sequence[Any]) -> Invalid:
    """The first thing that pydantic found, with the field by the name that the client gave it. Of what it
    says for each type of a union, that of the type which the client meant."""
    field = _field(errors[0])
    same = [error for error in errors if _field(error) == field]
    error = next((error for error in same if not error["type"].endswith("_type")), same[0])
    match error["type"]:
        case "extra_forbidden":
            return Invalid(
                f"Unsupported parameter: `{field}`.",
                field=field,
                next="Leave it out.",
                code="unsupported_parameter",
            )
        case "missing":
            code = "missing_required_parameter"
            return Invalid(f"Missing required parameter: `{field}`.", field=field, code=code)
        case "json_invalid":
            return Invalid("The body is not valid JSON.", field="body", next="Send a JSON object.")
        case _:
            return Invalid(f"Invalid `{field}`: {error['msg']}.", field=field)


def _field(error: Any) -> str:
    where = [str(part) for part in error["loc"]]
    inner = where[1:] if where[:1] and where[0] in _OUTER else where
    return ".".join(part for part in inner if not _BRANCH.search(part)) or "body"
