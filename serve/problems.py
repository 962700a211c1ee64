"""Errors as RFC 9457 documents, whoever raised them."""

from __future__ import annotations

import math

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from flotilla.core.errors import FlotillaError, NotFound, Problem, Refused
from serve import openai_errors
from serve.bodies import misfit
from serve.doors import doors_of
from serve.request_ids import request_id, unsaid_id

MEDIA_TYPE = "application/problem+json"


def response(problem: Problem) -> Response:
    """To the request that is being answered: its id is in it."""
    problem = msgspec.structs.replace(problem, request_id=request_id() or None)
    headers = {"X-Request-Id": unsaid_id()} if unsaid_id() else {}
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after_s)))
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(problem), problem.status, headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    app.add_exception_handler(FlotillaError, _on_flotilla_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)


async def _on_flotilla_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, FlotillaError)
    return response(error.problem())


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return response(misfit(error.errors()[0]).problem())


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        missing = NotFound(f"There is nothing at {request.scope['path']}.", next="See /docs.")
        if request.scope["path"].startswith(openai_errors.PREFIX):
            return openai_errors.response(missing)
        return response(missing.problem())
    if error.status_code == 400:
        problem = Refused("The body can't be read as UTF-8 JSON.", field="body", next="Send JSON in UTF-8.")
        return response(problem.problem())
    slug = str(error.detail).lower().replace(" ", "-")
    answer = response(
        Problem(
            type=f"https://flotilla.dev/problems/{slug}",
            title=str(error.detail),
            status=error.status_code,
            detail=f"{error.detail} at {request.scope['path']}.",
        )
    )
    answer.headers.update(error.headers or {})  # `Allow`, of a 405
    return answer


async def _on_bug(request: Request, error: Exception) -> Response:
    doors_of(request).log.error(
        "request.broke", path=request.scope["path"], request_id=request_id(), exc_info=error
    )
    return response(FlotillaError("The request could not be answered.", next="Try again.").problem())
