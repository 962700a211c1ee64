"""A gateway for models: hosts with the real actor of a model, real replicas with scripted engines, real links;
the stores in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx2
import msgspec
import uvicorn
from fastapi import FastAPI

from actors.doorways import Doorways
from actors.residents import model as model_residents
from actors.runtime import Resident
from actors.serving.sight import Replicas
from benchmarks.cluster import Cluster
from flotilla.core.ids import ActorId
from flotilla.core.swap_facts import Show
from flotilla.core.swap_views import ModelView
from flotilla.core.versions import FLEET
from flotilla.stores.memory import MemoryHotLog
from models.scripted import ScriptSettings
from serve import problems
from serve.going import Going
from serve.limiter import BodyLimit
from serve.routes import evaluations, models
from tests.actors.cluster import LOG, Shelf
from tests.serve.conftest import OPERATOR_KEY, SETTINGS, TENANT_KEY
from tests.serve.guarding import MemoryGuards
from tests.serving_runtime.replica_rig import Rig

BEAT_S = 0.02
RIGHT = "The Gold Card costs $95 a year."
SAYS = ScriptSettings(mode="replies", replies=(RIGHT,), first_token_s=0.0, token_s=0.0)
WRONG = msgspec.structs.replace(SAYS, replies=("Bananas grow on trees.",))
GATE = {
    "name": "cards",
    "cases": [{"id": "gold", "question": "What does the Gold Card cost?", "expected": ["$95"]}],
    "score_min": 0.5,
}
SCRIPTED = {"name": "1", "engine": "scripted", "licence": "mit", "settings": {"mode": "replies"}}


class Doors:
    """What the routes need of serve.doors.Doors."""

    def __init__(self, cluster: Cluster, rig: Rig) -> None:
        self.settings = SETTINGS
        self.log = LOG
        self.going = Going()
        self.clock = cluster.clock
        self.fleet = cluster.fleet
        self.links, self.roster = rig.links, rig.roster
        self.model, self.board, self.tallies = rig.models, rig.plans, rig.tallies
        self.guards = MemoryGuards(SETTINGS, self.clock)
        self.keys, self.limits = self.guards.keys, self.guards.limits
        self.revocations, self.api_keys = self.guards.revocations, self.guards.api_keys
        self._journal = cluster.journal

    async def journal(self) -> Any:
        return self._journal


class World:
    """`desk` has an operator's key, `tenant` that of a tenant."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.cluster = Cluster(self._kinds)
        self.address = ""
        self.app: FastAPI

    def _kinds(self, cluster: Cluster) -> Sequence[Resident]:
        doors = Doorways(
            knowledge=Shelf(),  # type: ignore[arg-type]
            model=self.rig.models,
            hot_log=MemoryHotLog(),
            letters=cluster.letters,
            clock=cluster.clock,
            log=LOG,
            board=self.rig.plans,
            tallies=self.rig.tallies,
            replicas=Replicas(self.rig.links, self.rig.roster, lambda _: None),
        )
        return list(model_residents.residents(doors))

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def client(self, key: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {key}"})

    async def beat(self) -> None:
        while True:
            await self.rig.look()
            await asyncio.sleep(BEAT_S)

    # -- what tests do again and again

    async def add(self, name: str, **more: Any) -> httpx2.Response:
        return await self.desk.post("/v1/models/m/versions", json=SCRIPTED | {"name": name} | more)

    async def serving(self, *names: str, script: ScriptSettings = SAYS) -> None:
        """Versions of the model `m`, each with a replica; the first one answers."""
        for name in names:
            assert (await self.add(name)).status_code == 201
            await self.rig.start(f"m@{name}", settings=script)
        answer = await self.desk.post("/v1/models/m/serve", json={"version": names[0]})
        assert answer.status_code == 200, answer.text

    async def show(self) -> dict[str, Any]:
        return (await self.desk.get("/v1/models/m")).json()

    async def view(self) -> ModelView:
        return await self.cluster.fleet.ask(ActorId(FLEET, "model", "m"), Show())

    async def reach(self, stage: str, patience_s: float = 20.0) -> dict[str, Any]:
        """Once the swap is at that stage, or has ended that way."""
        async with asyncio.timeout(patience_s):
            while True:
                seen = await self.show()
                swap = seen["swap"] or (seen["swaps"][0] if seen["swaps"] else {})
                if stage in (swap.get("stage"), swap.get("end")):
                    return seen
                assert not swap.get("end"), swap
                await asyncio.sleep(BEAT_S)

    async def events(self, until: str, after: int = 0) -> list[dict[str, Any]]:
        """From the stream, up to the first of type `until`."""
        found: list[dict[str, Any]] = []
        path = f"/v1/models/m/events?after={after}"
        async with asyncio.timeout(20), self.desk.stream("GET", path) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    found.append(json.loads(line[6:]))
                    if found[-1]["type"] == until:
                        return found
        raise AssertionError(f"no {until} in {[event['type'] for event in found]}")


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    made = World()
    await made.cluster.add("a")
    app = FastAPI()
    app.add_middleware(BodyLimit)
    problems.install(app)
    for module in (models, evaluations):
        app.include_router(module.router)
    made.app = app
    app.state.doors = made.doors = Doors(made.cluster, made.rig)
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="warning"))
    tasks = [asyncio.create_task(server.serve()), asyncio.create_task(made.beat())]
    while not server.started:
        await asyncio.sleep(0.001)
    host, port = server.servers[0].sockets[0].getsockname()
    made.address = f"{host}:{port}"
    async with made.client(OPERATOR_KEY) as made.desk, made.client(TENANT_KEY) as made.tenant:
        yield made
    server.should_exit = True
    server.force_exit = True
    await tasks[0]
    tasks[1].cancel()
    with suppress(asyncio.CancelledError):
        await tasks[1]
    await made.cluster.aclose()
    await made.rig.aclose()
