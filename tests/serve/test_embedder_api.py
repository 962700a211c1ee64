"""The embedder over HTTP, before a real librarian: ordered by an operator, seen by a tenant for its own collections."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import msgspec
import pytest
from fastapi import FastAPI

from actors.link import Links
from actors.roster import Roster
from actors.serving.librarian import LibrarianEmbedder, RemoteLibrarian
from flotilla.core.clock import SystemClock
from flotilla.core.knowledge import Document
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey
from serve import problems
from serve.log import logger
from serve.processes import librarian
from serve.routes import embedder
from serve.settings import Settings
from tests.serve.conftest import OPERATOR_KEY, SETTINGS, TENANT_KEY
from tests.serve.guarding import MemoryGuards

pytestmark = pytest.mark.timeout(120)
CARD = Document(id="cards/gold", title="Gold Card", text="The Gold Card costs 95 dollars a year.")
PATH = "/v1/knowledge/embedder"


@pytest.fixture
def settings() -> Iterator[Settings]:
    folder = Path(tempfile.mkdtemp(prefix="fa-", dir="/tmp"))
    server = Valkey(folder, folder)
    server.start()
    yield msgspec.structs.replace(
        SETTINGS, home=str(folder), redis_url=server.url, lance_uri=str(folder / "knowledge"), token="t"
    )
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


class Doors:
    """What the routes need of serve.doors.Doors."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.directory = valkey.ValkeyDirectory(valkey.connect(settings.redis_url))
        self.links = Links("t")
        self.roster = Roster(self.directory, SystemClock(), logger("test"), "librarian")
        self.knowledge = RemoteLibrarian(self.links, self.roster)
        self.embedder = LibrarianEmbedder(self.links, self.roster)
        guards = MemoryGuards(settings, SystemClock())
        self.keys, self.revocations = guards.keys, guards.revocations


@pytest.fixture
async def doors(settings: Settings) -> AsyncIterator[Doors]:
    service, up = await librarian.wire(settings), asyncio.Event()
    task = asyncio.create_task(service.run("librarian-0", "127.0.0.1", lambda _: up.set()))
    await up.wait()
    made = Doors(settings)
    while not made.roster.members("librarian"):
        await made.roster.refresh()
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await made.links.aclose()
    await made.directory.close()


def client(doors: Doors, key: str) -> httpx2.AsyncClient:
    app = FastAPI()
    problems.install(app)
    app.include_router(embedder.router)
    app.state.doors = doors
    headers = {"Authorization": f"Bearer {key}"}
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://fleet", headers=headers)


async def test_an_operator_orders_another_embedder_and_a_tenant_sees_its_own_collections(
    doors: Doors,
) -> None:
    for tenant in ("demo", "other"):
        await doors.knowledge.upsert(tenant, "faq", [CARD])
    order = {"model": "all-MiniLM-L6-v2", "name": "2", "engine": "minilm"}
    async with client(doors, OPERATOR_KEY) as desk, client(doors, TENANT_KEY) as tenant:
        # Which collections the librarian has looked at since it began is a matter of timing.
        assert (await desk.get(PATH)).json()["embedder"] == "all-MiniLM-L6-v2@1"
        assert (await tenant.post(PATH, json=order)).status_code == 403
        assert (await desk.post(PATH, json=order)).status_code == 202
        while not _done((await desk.get(PATH)).json()):
            await doors.roster.refresh()
        (mine,) = (await tenant.get(PATH)).json()["collections"]
        assert (mine["tenant"], mine["done"], mine["total"], mine["problem"]) == ("demo", 1, 1, None)
        hits = await doors.knowledge.search("demo", "faq", "gold card", limit=1)
        assert hits[0].passage.document == CARD.id


def _done(seen: dict[str, object]) -> bool:
    found = seen["collections"]
    assert isinstance(found, list)
    return seen["embedder"] == "all-MiniLM-L6-v2@2" and sum(one["switched"] for one in found) == 2


async def test_what_can_not_be_opened_is_refused_with_the_field(doors: Doors) -> None:
    good = {"model": "other", "name": "1", "engine": "minilm"}
    async with client(doors, OPERATOR_KEY) as desk:
        for wrong, field in (
            ({"source": "/nowhere"}, "source"),
            ({"engine": "scripted"}, "engine"),
            ({"name": "a b"}, "name"),
            ({"engin": "minilm"}, "engin"),
        ):
            answer = await desk.post(PATH, json=good | wrong)
            assert (answer.status_code >= 400, answer.json().get("field")) == (True, field), answer.text
        assert (await desk.get(PATH)).json()["embedder"] == "all-MiniLM-L6-v2@1"
