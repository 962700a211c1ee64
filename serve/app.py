"""The gateway's ASGI application: the routes, and nothing that waits before a request comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from serve import describing, problems
from serve.doors import Doors
from serve.limiter import BodyLimit
from serve.request_ids import RequestIds
from serve.routes import (
    actors,
    customers,
    embedder,
    evaluations,
    health,
    keys,
    knowledge,
    live,
    models,
    openai,
    page,
    sessions,
    usage,
)
from serve.settings import Settings


def create_app(settings: Settings, *, told_ids: bool = False) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        doors = Doors(settings)
        app.state.doors = doors
        keeping = asyncio.create_task(doors.run())
        yield
        keeping.cancel()
        await doors.aclose()

    app = FastAPI(title="Flotilla", version="1", lifespan=lifespan, redoc_url=None)
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestIds, told=told_ids)
    problems.install(app)
    for module in (
        sessions,
        live,
        embedder,
        knowledge,
        customers,
        actors,
        models,
        evaluations,
        usage,
        keys,
        openai,
        health,
        page,
    ):
        app.include_router(module.router)
    describing.describe(app)
    return app
