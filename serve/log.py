"""Structured logs, one JSON object a line. Text of customers and secrets never go in."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

# Fields that could carry a customer's words or a secret are cut out, whoever logs them.
_NEVER = frozenset({"text", "query", "message", "token", "key", "secret", "authorization", "password", "url"})


def _redact(_: Any, __: str, event: Any) -> Any:
    for name in _NEVER & event.keys():
        event[name] = f"[{len(str(event[name]))} characters]"
    return event


def logger(role: str) -> Any:
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    return structlog.get_logger(role=role)
