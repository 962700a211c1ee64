"""Alive; able to serve, each dependency by name; and the numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from flotilla.core.errors import FlotillaError, Unavailable
from serve.doors import Doors, doors_of
from serve.host_metrics import HostMetrics
from serve.metrics import REWOUND
from serve.routes.sessions import json

router = APIRouter(tags=["health"])

PING_TIMEOUT_S = 5.0
SCRAPE_TIMEOUT_S = 1.0


@router.get("/healthz")
async def alive() -> Response:
    return json({"status": "ok"})


@router.get("/readyz")
async def ready(request: Request) -> Response:
    """200 if every dependency answers, else 503; each is named with what it says."""
    checks = _checks(doors_of(request))
    said = dict(zip(checks, await asyncio.gather(*map(_say, checks.values())), strict=True))
    good = all(word == "ok" for word in said.values())
    return json({"status": "ok" if good else "unavailable", "dependencies": said}, 200 if good else 503)


def _checks(doors: Doors) -> dict[str, Callable[[], Awaitable[None]]]:
    async def postgres() -> None:
        await (await doors.journal()).ping()

    return {
        "redis": doors.directory.ping,
        "postgres": postgres,
        "host": doors.fleet.ping,
        "knowledge": doors.knowledge.ping,
        "model": doors.model.ping,
    }


async def _say(ping: Callable[[], Awaitable[None]]) -> str:
    try:
        async with asyncio.timeout(PING_TIMEOUT_S):
            await ping()
    except TimeoutError:
        return Unavailable(f"No answer in {PING_TIMEOUT_S:g} s.").detail
    except FlotillaError as error:
        return error.detail
    return "ok"


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Of this gateway, and of all hosts that answer within a second."""
    doors = doors_of(request)
    REWOUND.set(doors.fleet.rewound)
    hosts = await doors.overview.statuses(SCRAPE_TIMEOUT_S)
    said = {name: hosts.said.get(name) for name in doors.overview.names()}
    return Response(generate_latest() + generate_latest(HostMetrics(said)), media_type=CONTENT_TYPE_LATEST)
