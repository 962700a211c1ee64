"""Alive; able to serve, each dependency by name; and the numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from actors.inspection import Status
from actors.serving.gauging import ask_replicas
from actors.serving.standing import Standing, stands
from flotilla.core.errors import FlotillaError, Unavailable
from serve.doors import Doors, doors_of
from serve.gate_metrics import GateMetrics
from serve.genai_metrics import GenAiMetrics
from serve.host_metrics import HostMetrics
from serve.metrics import REWOUND
from serve.replica_metrics import ReplicaMetrics
from serve.routes.sessions import json
from serve.serving_metrics import ServingMetrics

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


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Of this gateway, and of all hosts and replicas that answer within a second."""
    doors = doors_of(request)
    REWOUND.set(doors.fleet.rewound)
    catalogue = doors.model.catalogue
    hosts, replicas, tallies = await asyncio.gather(
        doors.overview.statuses(SCRAPE_TIMEOUT_S),
        ask_replicas(doors.links, doors.roster, SCRAPE_TIMEOUT_S),
        doors.tallied.read({version.id for version in catalogue}),
    )
    collectors = (
        GateMetrics(doors.gate),
        HostMetrics({name: hosts.said.get(name) for name in doors.overview.names()}),
        ServingMetrics(_standings(doors, hosts.said), catalogue.plans),
        ReplicaMetrics(replicas),
        GenAiMetrics(tallies, catalogue.version),
    )
    text = generate_latest() + b"".join(map(generate_latest, collectors))
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _standings(doors: Doors, hosts: Mapping[str, Status]) -> dict[str, Standing]:
    theirs = {host: status.models for host, status in hosts.items() if status.models}
    return theirs | {"gateway": stands(doors.model, doors.charging)}
