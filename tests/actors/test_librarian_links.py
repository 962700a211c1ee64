"""The librarian's embedder is changed over a link, and the order outlives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from actors.link import Links
from actors.roster import Roster
from actors.serving.embedding import RemoteEmbedder
from actors.serving.librarian import Embedders, Opener, Reembedder, RemoteLibrarian, answer_librarian
from flotilla.core.errors import Conflict, Misconfigured, Refused
from flotilla.core.knowledge import Document
from flotilla.core.members import Member
from flotilla.core.ports import Embedder
from flotilla.core.versions import Version
from flotilla.stores.lance import LanceKnowledge
from flotilla.stores.lance_orders import LanceOrders
from tests.actors.membership import LOG, TOKEN, Board, Hands, listening
from tests.replicas import replicas
from tests.wordbags import Wordbag

pytestmark = pytest.mark.timeout(60)

OLD = Version(model="bag", name="1", engine="minilm")
NEW = Version(model="bag", name="2", engine="sentence-transformers", source="/weights")
DOCUMENTS = [Document(id=f"d/{n}", title="", text=f"Case number{n} is closed.") for n in range(30)]


class Bags:
    """Opens word bags; those from /nowhere can't be."""

    def __init__(self) -> None:
        self.opened: dict[str, Wordbag] = {}

    async def __call__(self, version: Version) -> Embedder:
        if version.source == "/nowhere":
            raise Misconfigured("There are no weights.", field="source")
        self.opened[version.id] = Wordbag(version.id, 512 if version == OLD else 768)
        return self.opened[version.id]


@asynccontextmanager
async def librarian(folder: Path, opener: Opener) -> AsyncIterator[RemoteLibrarian]:
    """What wiring makes of it, and who asks it."""
    embedders = Embedders(LanceOrders(str(folder)), opener, OLD)
    knowledge = LanceKnowledge(str(folder), await embedders.first(LOG), find=embedders.find)
    doing = Reembedder(knowledge, embedders, Hands(), LOG)
    board, links = Board(), Links(TOKEN)
    listener = await listening(board, "librarian-0", answer_librarian(knowledge, doing), role="librarian")
    roster = Roster(board, Hands(), LOG, "librarian")
    await roster.refresh()
    running = asyncio.create_task(doing.run(Member(role="librarian", name="l", life="l", address="")))
    try:
        yield RemoteLibrarian(links, roster)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await links.aclose()
        await listener.aclose()
        await knowledge.close()
        await embedders.close()


async def until_switched(here: RemoteLibrarian, embedder: str) -> None:
    while True:
        found = await here.reembedding()
        if found and all(
            one.embedder == embedder and one.switched and one.done == one.total for one in found
        ):
            return
        await asyncio.sleep(0.01)


async def check_finds(here: RemoteLibrarian, n: int) -> None:
    hits = await here.search("demo", "faq", f"Case number{n} is closed.", limit=2, mode="vector")
    assert hits[0].passage.document == f"d/{n}" and hits[0].similarity > 0.9


async def test_an_order_is_taken_carried_out_and_remembered(tmp_path: Path) -> None:
    bags = Bags()
    async with librarian(tmp_path, bags) as here:
        await here.upsert("demo", "faq", DOCUMENTS)
        await here.reembed(NEW)
        await until_switched(here, NEW.id)
        await check_finds(here, 4)
        while not bags.opened[OLD.id].closed:  # nobody needs it
            await asyncio.sleep(0.01)
    bags = Bags()
    async with librarian(tmp_path, bags) as here:
        assert set(bags.opened) == {NEW.id}
        await check_finds(here, 5)
        await here.reembed(OLD)  # and back
        await until_switched(here, OLD.id)
        await check_finds(here, 6)


async def test_an_order_of_one_who_died_is_carried_out_by_the_next(tmp_path: Path) -> None:
    async with librarian(tmp_path, Bags()) as here:
        await here.upsert("demo", "faq", DOCUMENTS)
    await LanceOrders(str(tmp_path)).want(NEW)  # as far as it came
    async with librarian(tmp_path, Bags()) as here:
        await check_finds(here, 4)
        await until_switched(here, NEW.id)
        await check_finds(here, 4)


async def test_bad_orders_are_refused_and_change_nothing(tmp_path: Path) -> None:
    async with librarian(tmp_path, Bags()) as here:
        await here.upsert("demo", "faq", DOCUMENTS)
        with pytest.raises(Misconfigured) as refused:
            await here.reembed(Version(model="bag", name="3", engine="minilm", source="/nowhere"))
        assert refused.value.field == "source"
        with pytest.raises(Refused) as refused:
            await here.reembed(Version(model="a b", name="3", engine="minilm"))
        assert refused.value.field == "model"
        await here.reembed(NEW)
        with pytest.raises(Conflict):
            await here.reembed(Version(model="bag", name="2", engine="minilm", source="/other"))
        await until_switched(here, NEW.id)
        await check_finds(here, 1)


async def test_an_embedder_that_is_gone_leaves_the_default_in_its_place(tmp_path: Path) -> None:
    async with librarian(tmp_path, Bags()) as here:
        await here.upsert("demo", "faq", DOCUMENTS)
    await LanceOrders(str(tmp_path)).want(Version(model="x", name="1", engine="minilm", source="/nowhere"))
    async with librarian(tmp_path, Bags()) as here:
        await check_finds(here, 9)


async def test_with_the_embedders_behind_links_too(tmp_path: Path) -> None:
    bags = Bags()
    async with replicas(bags, "e-0", "e-1") as made:

        async def remote(version: Version) -> Embedder:
            return await RemoteEmbedder.open(made.links, made.roster, version)

        async with librarian(tmp_path, remote) as here:
            await here.upsert("demo", "faq", DOCUMENTS)
            await here.reembed(NEW)
            await until_switched(here, NEW.id)
            await made.kill("e-0")
            await check_finds(here, 7)
