"""Where spans of this process go, and which turns are traced."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from starlette.requests import HTTPConnection

from flotilla.core.calls import Call
from flotilla.core.clock import Clock
from flotilla.core.errors import FlotillaError
from flotilla.core.ids import ActorId
from flotilla.core.tracing import About, Opened, Tracer, sampled
from flotilla.stores.traces import JsonlTracer
from serve.request_ids import request_id
from serve.settings import Settings

NO_CALL = Call()


def tracer_of(settings: Settings, role: str, log: Any) -> Tracer | None:
    if settings.traces == "none":
        return None
    if settings.otlp_endpoint:
        try:
            from flotilla.connectors.otlp import OtlpTracer  # noqa: PLC0415
        except ImportError as missing:
            log.warning("traces.to_files", reason=f"OTLP needs {missing.name}.")
        else:
            return OtlpTracer(role, settings.otlp_endpoint)
    return JsonlTracer(settings.logs, role)


class Traces:
    """Traces a share of the turns, and those whose caller traces."""

    def __init__(self, tracer: Tracer | None, clock: Clock, share: float) -> None:
        self.tracer = tracer
        self._clock = clock
        self._share = share

    def wanted(self, header: str) -> bool:
        """A caller that sends a `traceparent` has decided; for all others chance does."""
        if self.tracer is None:
            return False
        theirs = sampled(header) if header else None
        return random.random() < self._share if theirs is None else theirs

    @contextmanager
    def call(self, name: str, actor: ActorId, header: str = "") -> Generator[Call]:
        """What is asked with this call is in a span of the gateway, if it is traced."""
        if self.tracer is None or not self.wanted(header):
            yield NO_CALL
            return
        parent = header if header and sampled(header) else ""
        said: dict[str, About] = {"actor": str(actor), "host": "gateway", "request_id": request_id()}
        span = Opened(self.tracer, self._clock, parent, name, said)
        try:
            yield Call(trace=span.traceparent)
        except BaseException as error:
            span.outcome = error.slug if isinstance(error, FlotillaError) else type(error).__name__
            raise
        finally:
            span.close()


async def close(tracer: Tracer | None) -> None:
    """Beside the loop, as a collector may be slow to take the last spans."""
    if tracer is not None:
        await asyncio.to_thread(tracer.close)


def header_of(connection: HTTPConnection, *, visitor: bool) -> str:
    """The `traceparent` that came with a request; a visitor's browser has no say in what the fleet writes."""
    return "" if visitor else connection.headers.get("traceparent", "")
