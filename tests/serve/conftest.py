"""A gateway that listens on a port of its own, before hosts and memory stores in the same process."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import uvicorn
from fastapi import FastAPI

from actors.overview import Overview
from flotilla.stores.embedded import Valkey
from flotilla.stores.memory import MemoryOnce
from models.scripted import ScriptSettings
from serve import auth
from serve.admission import Gate, GatedFleet
from serve.app import create_app
from serve.going import Going
from serve.settings import ApiKey, Settings
from serve.tracing import Traces
from tests.actors.cluster import FAST, LOG, Cluster
from tests.serve.guarding import MemoryGuards

TENANT_KEY, OPERATOR_KEY = "a key of a tenant", "a key of an operator"
SETTINGS = Settings(
    home="unused",
    secret="a secret of thirty-two characters",
    keys={
        hashlib.sha256(TENANT_KEY.encode()).hexdigest(): ApiKey("demo"),
        hashlib.sha256(OPERATOR_KEY.encode()).hexdigest(): ApiKey("other", operator=True),
    },
)


class Doors:
    """What a gateway needs of the world (serve.doors.Doors), on the stores of a cluster in memory."""

    def __init__(self, cluster: Cluster) -> None:
        self.settings = SETTINGS
        gate = Gate(cluster.clock)
        self.fleet = GatedFleet(cluster.links, cluster.roster, cluster.clock, LOG, gate)
        self.once = MemoryOnce()
        self.log = LOG
        self.going = Going()
        self._journal = cluster.journal
        self._letters = cluster.letters
        self.overview = Overview(
            cluster.links, cluster.roster, cluster.directory, cluster.pins, roles=("host",)
        )
        self.clock = cluster.clock
        self.guards = MemoryGuards(SETTINGS, cluster.clock)
        self.keys, self.limits = self.guards.keys, self.guards.limits
        self.revocations, self.api_keys = self.guards.revocations, self.guards.api_keys
        self.traces = Traces(None, cluster.clock, 0.0)

    async def journal(self) -> Any:
        return self._journal

    async def letters(self) -> Any:
        return self._letters


class Gateway(msgspec.Struct, frozen=True):
    cluster: Cluster
    address: str
    desk: httpx2.AsyncClient
    app: FastAPI

    async def session(self) -> str:
        return (await self.desk.post("/v1/sessions", json={"agent": "bank"})).json()["id"]

    def token(self, session: str) -> str:
        return auth.issue(SETTINGS, auth.DEV_TENANT, session)[0]

    def with_key(self, key: str) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx2.AsyncClient(base_url=f"http://{self.address}", headers=headers)

    def visitor(self, session: str) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token(session)}"}
        return httpx2.AsyncClient(base_url=f"http://{self.address}", headers=headers)


@pytest.fixture(scope="session")
def valkey_store() -> Iterator[Valkey]:
    """A real Valkey, in a short path as it holds a socket."""
    folder = Path(tempfile.mkdtemp(prefix="fs-", dir="/tmp"))
    server = Valkey(folder, folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with _serving(Cluster(script=FAST)) as made:
        yield made


@pytest.fixture
async def thinking() -> AsyncIterator[Gateway]:
    """The first word of a reply takes the model longer than any test."""
    async with _serving(Cluster(script=ScriptSettings(first_token_s=3600.0))) as made:
        yield made


@asynccontextmanager
async def _serving(cluster: Cluster) -> AsyncIterator[Gateway]:
    await cluster.add("a")
    app = create_app(SETTINGS)
    app.state.doors = Doors(cluster)
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="warning"))
    serving = asyncio.create_task(server.serve())
    await cluster.until(lambda: server.started)
    host, port = server.servers[0].sockets[0].getsockname()
    address = f"{host}:{port}"
    async with httpx2.AsyncClient(
        base_url=f"http://{address}", headers={"Authorization": "Bearer dev"}
    ) as desk:
        yield Gateway(cluster, address, desk, app)
    server.should_exit = True
    await serving
    await cluster.aclose()
