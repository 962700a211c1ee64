"""`grpc.health.v1.Health`, the standard one: what `/readyz` says, for the whole door or a service by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from starlette.requests import HTTPConnection

from flotilla.core.errors import NotFound
from flotilla.core.limits import LIMITS
from flotilla.rpc import v1_pb2
from serve.doors import doors_of
from serve.rpc import inside
from serve.rpc.calls import Stream
from serve.rpc.inside import Http

Response = health_pb2.HealthCheckResponse
_pb: Any = health_pb2  # its types don't know List yet
SERVICES = ("", *(service.full_name for service in v1_pb2.DESCRIPTOR.services_by_name.values()))
WATCH_EVERY_S = 2.0
FRESH_S = 1.0


class Readiness:
    """Asked of the routes at most once a second, however many want to know: nobody needs a key for it."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._asked_at = -FRESH_S
        self._ready = False
        self._asking = asyncio.Lock()

    async def ready(self) -> bool:
        async with self._asking:
            clock = asyncio.get_running_loop()
            if clock.time() - self._asked_at >= FRESH_S:
                answer = await inside.request(self._app, Http(method="GET", path="/readyz"), (), "")
                self._ready, self._asked_at = answer.status == 200, clock.time()
            return self._ready


async def status(app: FastAPI, service: str) -> int:
    """SERVING or NOT_SERVING; SERVICE_UNKNOWN for what is none of ours."""
    if service not in SERVICES:
        return Response.SERVICE_UNKNOWN
    if not hasattr(app.state, "readiness"):
        app.state.readiness = Readiness(app)
    readiness: Readiness = app.state.readiness
    return Response.SERVING if await readiness.ready() else Response.NOT_SERVING


async def check(app: FastAPI, request: Any) -> health_pb2.HealthCheckResponse:
    """Raises `NotFound` for a service that isn't here, as its contract wants it."""
    found = await status(app, request.service)
    if found == Response.SERVICE_UNKNOWN:
        raise NotFound(
            f"There is no service {request.service!r}.", field="service", next="Ask the reflection service."
        )
    return Response(status=found)


async def list_all(app: FastAPI, _: Any) -> Message:
    found = {service: Response(status=await status(app, service)) for service in SERVICES}
    return _pb.HealthListResponse(statuses=found)


async def _watch(connection: HTTPConnection, request: Any) -> AsyncGenerator[health_pb2.HealthCheckResponse]:
    """The status now, whenever it changes, and now and then, as proxies cut what is silent for long."""
    told, clock = (-1, 0.0), doors_of(connection).clock
    while True:
        found, now = await status(connection.app, request.service), clock.monotonic()
        if found != told[0] or now - told[1] >= LIMITS.keep_open_every_s:
            yield Response(status=found)
            told = found, now
        await clock.sleep(WATCH_EVERY_S)


SERVICE = "/grpc.health.v1.Health/"
DIRECT = {
    f"{SERVICE}Check": (health_pb2.HealthCheckRequest, check),
    f"{SERVICE}List": (_pb.HealthListRequest, list_all),
}
STREAMS = {f"{SERVICE}Watch": Stream(health_pb2.HealthCheckRequest, _watch)}
