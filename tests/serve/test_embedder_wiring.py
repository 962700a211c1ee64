"""A librarian whose embedders are processes of their own, wired as a fleet wires them, with a real Valkey."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import msgspec
import pytest

from actors.link import Links
from actors.roster import Roster
from actors.serving.librarian import RemoteLibrarian
from flotilla.core.clock import SystemClock
from flotilla.core.errors import Misconfigured
from flotilla.core.knowledge import Document
from flotilla.core.versions import Version
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey
from serve.log import logger
from serve.settings import Settings, read_settings

pytestmark = pytest.mark.timeout(120)
CARD = Document(id="cards/gold", title="Gold Card", text="The Gold Card costs 95 dollars a year.")
ATM = Document(id="accounts/atm", title="Cash machines", text="Withdrawals abroad cost three percent.")


@pytest.fixture
def settings() -> Iterator[Settings]:
    folder = Path(tempfile.mkdtemp(prefix="fe-", dir="/tmp"))
    server = Valkey(folder, folder)
    server.start()
    yield Settings(
        home=str(folder), redis_url=server.url, lance_uri=str(folder / "knowledge"), token="t", embedders=1
    )
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


async def run(settings: Settings, role: str) -> asyncio.Task[None]:
    """Started, and listening."""
    service = await import_module(f"serve.processes.{role}").wire(settings)
    up = asyncio.Event()
    task = asyncio.create_task(service.run(f"{role}-0", "127.0.0.1", lambda _: up.set()))
    await up.wait()
    return task


@pytest.mark.parametrize("embedders", [0, 1])
async def test_knowledge_with_embedders_here_and_elsewhere(settings: Settings, embedders: int) -> None:
    settings = msgspec.structs.replace(settings, embedders=embedders)
    tasks = [await run(settings, role) for role in ("embedder", "librarian")[1 - embedders :]]
    directory = valkey.ValkeyDirectory(valkey.connect(settings.redis_url))
    links, roster = Links("t"), Roster(directory, SystemClock(), logger("test"), "librarian", "embedder")
    while not roster.members("librarian"):
        await roster.refresh()
    assert len(roster.members("embedder")) == embedders
    here = RemoteLibrarian(links, roster)
    await here.upsert("demo", "faq", [CARD, ATM])
    assert (await here.search("demo", "faq", "gold card", limit=1))[0].passage.document == CARD.id
    await here.reembed(Version(model="all-MiniLM-L6-v2", name="2", engine="minilm"))
    while not (done := await here.reembedding()) or done[0].live != "all-MiniLM-L6-v2@2":
        await asyncio.sleep(0.01)
    assert (await here.search("demo", "faq", "cash abroad", limit=1))[0].passage.document == ATM.id
    for task in reversed(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await links.aclose()
    await directory.close()


def test_the_settings_of_embedders(tmp_path: Path) -> None:
    assert (read_settings({}).embedders, read_settings({}).reranker) == (0, "")
    read = read_settings({"FLOTILLA_EMBEDDERS": "2", "FLOTILLA_RERANKER": str(tmp_path)})
    assert (read.embedders, read.reranker) == (2, str(tmp_path))
    with pytest.raises(Misconfigured, match="FLOTILLA_RERANKER") as refused:
        read_settings({"FLOTILLA_RERANKER": "/nowhere"})
    assert refused.value.field == "FLOTILLA_RERANKER"
