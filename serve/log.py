"""Structured logs, one JSON object a line. Text of customers and secrets never go in."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

# Fields that could carry a customer's words or a secret are cut out, whoever logs them.
FRAMES_MAX = 20
_NEVER = frozenset({"text", "query", "message", "token", "key", "secret", "authorization", "password", "url"})


def _redact(_: Any, __: str, event: Any) -> Any:
    for name in _NEVER & event.keys():
        event[name] = f"[{len(str(event[name]))} characters]"
    return event


def _where(_: Any, __: str, event: Any) -> Any:
    """Of an exception its types and the lines that raised it, and not what it says: that may be a
    customer's text."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["exception"] = list(_chain(error))
    return event


def _chain(error: BaseException | None) -> Iterator[dict[str, Any]]:
    while error is not None:
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
        yield {
            "type": type(error).__name__,
            "at": [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames],
        }
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def logger(role: str) -> Any:
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact,
            _where,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=True,
    )
    return structlog.get_logger(role=role)
