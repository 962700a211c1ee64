"""The pages: to talk to the fleet, with the visits that it begins, and to watch its models."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.responses import FileResponse

from flotilla.core import signals
from flotilla.core.agents import AGENTS, DEFAULT_AGENT
from flotilla.core.errors import Forbidden, NotFound
from flotilla.core.ids import new_id
from serve.auth import DEV_KEY, DEV_TENANT, Principal
from serve.bodies import Visit
from serve.doors import doors_of
from serve.limits.headers import limited
from serve.routes.sessions import json, with_token

router = APIRouter(tags=["web"])

FOLDER = Path(__file__).parents[2] / "web"
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@router.get("/", include_in_schema=False)
async def page() -> Response:
    return FileResponse(FOLDER / "index.html", headers=_HEADERS)


@router.get("/models", include_in_schema=False)
async def models() -> Response:
    return FileResponse(FOLDER / "models.html", headers=_HEADERS)


@router.get("/web/{name}", include_in_schema=False)
async def file(name: str) -> Response:
    if name not in {path.name for path in FOLDER.iterdir() if path.is_file() and path.name[0] != "."}:
        raise NotFound(f"There is no file {name!r}.")
    return FileResponse(FOLDER / name, headers=_HEADERS)


@router.post("/v1/web/visits", status_code=201)
async def visit(request: Request, body: Visit) -> Response:
    """Opens a session for a visitor of the page, who gets a token for it and never a key.

    Without a key of its own the page speaks for the demo tenant, so it does on loopback only.
    """
    doors = doors_of(request)
    if not doors.settings.on_loopback:
        raise Forbidden(
            "Visits without a key are for fleets that listen on loopback.",
            next="Open the session on your server with POST /v1/sessions and hand its `token` to the browser.",
        )
    agent = AGENTS.get(body.agent or DEFAULT_AGENT)
    if agent is None:
        raise NotFound(
            f"There is no agent {body.agent!r}.", field="agent", next=f"Known: {', '.join(AGENTS)}."
        )
    who = Principal(tenant=DEV_TENANT, key=DEV_KEY)
    await limited(request, doors.limits.opening(who))
    view = await doors.fleet.ask(who.actor(new_id("s")), signals.Open(agent=agent.name, channel="web"))
    shown = with_token(doors, who, view)
    return json(
        {
            "session": view.id,
            "token": shown["token"],
            "expires_at": shown["expires_at"],
            "agent": {"name": agent.name, "greeting": agent.greeting, "examples": agent.examples},
        },
        201,
    )
