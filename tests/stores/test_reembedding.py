"""Another embedder for collections that are searched and written: nothing fails, nothing is mixed, and whoever
dies on the way is followed by one that goes on."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from flotilla.core.errors import Conflict, FlotillaError, Unavailable
from flotilla.core.knowledge import Document, SearchMode
from flotilla.core.ports import Embedder
from flotilla.core.versions import Version
from flotilla.stores import lance_columns, lance_reembedding
from flotilla.stores.lance import LanceKnowledge
from flotilla.stores.lance_columns import UNMARKED_EMBEDDER
from flotilla.stores.lance_orders import LanceOrders
from flotilla.stores.lance_reembedding import Reembedder
from flotilla.stores.lance_table import PassageTable
from tests.wordbags import Wordbag

pytestmark = pytest.mark.timeout(120)
MODES: tuple[SearchMode, ...] = get_args(SearchMode)
ROOT = Path(__file__).parents[2]


def document(n: int, about: str = "money") -> Document:
    return Document(id=f"d/{n}", title=f"Case {n}", text=f"Case number{n} is about {about}.")


DOCUMENTS = [document(n) for n in range(40)]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a collection of forty takes many."""
    monkeypatch.setattr(lance_reembedding, "FILL_PASSAGES", 7)
    monkeypatch.setattr(lance_reembedding, "TIDY_PASSAGES", 15)


@asynccontextmanager
async def opened(folder: Path, *embedders: Embedder, **more: Any) -> AsyncIterator[LanceKnowledge]:
    """The first is for new collections; the others can be found."""
    by_name = {embedder.name: embedder for embedder in embedders}

    async def find(name: str) -> Embedder:
        if name not in by_name:
            raise Unavailable(f"There is no {name}.")
        return by_name[name]

    store = LanceKnowledge(str(folder), embedders[0], find=find, **more)
    try:
        yield store
    finally:
        await store.close()


async def table_of(folder: Path, tenant: str = "demo", collection: str = "faq") -> PassageTable:
    return await PassageTable.open(await lancedb.connect_async(f"{folder}/{tenant}"), collection)


async def check_finds(store: LanceKnowledge, n: int) -> None:
    for mode in MODES:
        hits = await store.search(
            "demo", "faq", f"Case {n} Case number{n} is about money", limit=3, mode=mode
        )
        assert hits[0].passage.document == f"d/{n}", mode
        assert hits[0].similarity > 0.9


async def check_whole(folder: Path, embedder: Wordbag) -> None:
    """One column of vectors, every one of them by `embedder`."""
    database = await lancedb.connect_async(f"{folder}/demo")
    rows = await (await database.open_table("faq")).query().to_arrow()
    vectors = [field for field in rows.schema if pa.types.is_fixed_size_list(field.type)]
    assert [field.metadata[b"embedder"].decode() for field in vectors] == [embedder.name]
    assert rows[vectors[0].name].null_count == 0
    expected = embedder.vectors(rows["words"].to_pylist())
    np.testing.assert_allclose(lance_columns.vectors_of(rows[vectors[0].name]), expected, atol=1e-5)


async def test_a_collection_gets_another_embedder_and_goes_back(tmp_path: Path) -> None:
    old, new = Wordbag("old", 512), Wordbag("new", 768)
    async with opened(tmp_path, old, new) as store:
        await store.upsert("demo", "faq", DOCUMENTS)
        hashes = await store.documents("demo", "faq")
        for wanted in (new, old):
            await store.reembed(wanted)
            (progress,) = store.reembedding()
            assert (progress.done, progress.total, progress.switched) == (40, 40, True)
            await check_finds(store, 7)
            await check_whole(tmp_path, wanted)
            assert await store.documents("demo", "faq") == hashes
            texts = wanted.texts
            assert (await store.upsert("demo", "faq", DOCUMENTS)).unchanged == 40
            assert wanted.texts == texts
    async with opened(tmp_path, old) as again:
        await check_finds(again, 3)


async def test_all_tenants_and_collections_and_new_ones_too(tmp_path: Path) -> None:
    old, new = Wordbag("old", 32), Wordbag("new", 48)
    async with opened(tmp_path, old, new) as store:
        for tenant, collection in (("acme", "faq"), ("demo", "faq"), ("demo", "news")):
            await store.upsert(tenant, collection, DOCUMENTS[:9])
        await store.reembed(new)
        done = {(one.tenant, one.collection): one.switched for one in store.reembedding()}
        assert done == {("acme", "faq"): True, ("demo", "faq"): True, ("demo", "news"): True}
        await store.upsert("demo", "later", DOCUMENTS[:3])
        assert (await table_of(tmp_path, "demo", "later")).layout.live.embedder == "new"


async def test_no_search_or_write_fails_while_it_switches_back_and_forth(tmp_path: Path) -> None:
    old, new = Wordbag("old", 512), Wordbag("new", 768)
    async with opened(tmp_path, old, new) as store:
        await store.upsert("demo", "faq", DOCUMENTS)
        over = asyncio.Event()
        done = {"searches": 0, "writes": 0}

        async def search() -> None:
            while not over.is_set():
                await check_finds(store, random.randrange(40))
                done["searches"] += len(MODES)

        async def write() -> None:
            while not over.is_set():
                n = 100 + done["writes"] % 20
                await store.upsert("demo", "faq", [document(n, f"version {done['writes']}")])
                if done["writes"] % 3 == 0:
                    assert await store.remove("demo", "faq", f"d/{n}")
                done["writes"] += 1

        others = [asyncio.create_task(search()), asyncio.create_task(write()), asyncio.create_task(search())]
        for wanted in (new, old, new):
            await store.reembed(wanted)
        over.set()
        await asyncio.gather(*others)
        assert done["searches"] > 30 and done["writes"] > 5
        await check_whole(tmp_path, new)
        for n in range(100, 120):
            known = f"d/{n}" in await store.documents("demo", "faq")
            query = f"Case {n} Case number{n} is about version"
            found = await store.search("demo", "faq", query, limit=3, mode="vector")
            assert (f"d/{n}" == found[0].passage.document) == known


async def test_killed_between_any_two_steps_it_is_searched_and_goes_on(tmp_path: Path) -> None:
    old, new = Wordbag("old", 512), Wordbag("new", 768)
    async with opened(tmp_path, old) as store:
        await store.upsert("demo", "faq", DOCUMENTS)
    steps: list[str] = []
    while not steps or steps[-1] != "done":
        async with opened(tmp_path, old, new, vectors_scanned_max=20) as store:  # a new process each time
            await check_finds(store, len(steps))
            table = await store._shelves.table("demo", "faq")
            steps.append(await Reembedder("demo", "faq", table, new, 20).step())
            changed = document(50 + len(steps))
            await store.upsert("demo", "faq", [changed])
            await check_finds(store, 50 + len(steps))
    order = list(dict.fromkeys(steps))
    assert order == ["begin", "fill", "index", "switch", "drop_left", "done"]
    assert steps.count("fill") >= 6
    await check_whole(tmp_path, new)


KILLED = """
import asyncio, sys
from flotilla.stores import lance_reembedding
from flotilla.stores.lance import LanceKnowledge
from tests.wordbags import Wordbag

lance_reembedding.FILL_PASSAGES, lance_reembedding.TIDY_PASSAGES = 5, 10
OLD, NEW = Wordbag("old", 512), Wordbag("new", 768, pause_s=0.03)

async def find(name):
    return {"old": OLD, "new": NEW}[name]

async def main():
    store = LanceKnowledge(sys.argv[1], OLD, find=find)
    print("begun", flush=True)
    await store.reembed(NEW)
    print("done", flush=True)

asyncio.run(main())
"""


async def test_kill_9_while_it_is_under_way(tmp_path: Path) -> None:
    old, new = Wordbag("old", 512), Wordbag("new", 768)
    async with opened(tmp_path, old) as store:
        await store.upsert("demo", "faq", DOCUMENTS)
    chance, kills, finished = random.Random(5), 0, False
    while not finished:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, str(tmp_path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        assert await child.stdout.readline() == b"begun\n"
        try:
            # Longer each time, so that it comes to an end; where it is hit is left to chance.
            async with asyncio.timeout(chance.uniform(0.04, 0.2) + 0.06 * kills):
                finished = b"done\n" in [line async for line in child.stdout]
        except TimeoutError:
            kills += 1
            child.send_signal(signal.SIGKILL)
        await child.wait()
        async with opened(tmp_path, old, new) as store:
            await check_finds(store, kills % 40)
    assert kills >= 1
    await check_whole(tmp_path, new)


async def test_another_wish_half_way(tmp_path: Path) -> None:
    old, new, newest = Wordbag("old", 512), Wordbag("new", 768), Wordbag("newest", 512)
    async with opened(tmp_path, old, new, newest) as store:
        await store.upsert("demo", "faq", DOCUMENTS)
        table = await store._shelves.table("demo", "faq")
        for _ in range(3):
            await Reembedder("demo", "faq", table, new, 1000).step()
        assert table.layout.building and table.layout.building.embedder == "new"
        await store.reembed(newest)
        await check_whole(tmp_path, newest)
        for _ in range(3):
            await Reembedder("demo", "faq", table, new, 1000).step()
        await store.reembed(newest)  # back before it was there
        await check_whole(tmp_path, newest)
        await check_finds(store, 11)


async def test_one_wish_at_a_time(tmp_path: Path) -> None:
    old, new = Wordbag("old", 512), Wordbag("new", 768, pause_s=0.05)
    async with opened(tmp_path, old, new) as store:
        await store.upsert("demo", "faq", DOCUMENTS)
        first = asyncio.create_task(store.reembed(new))
        await asyncio.sleep(0)
        with pytest.raises(Conflict):
            await store.reembed(old)
        await first


async def test_a_new_embedder_out_of_order_stops_neither_reads_nor_writes(tmp_path: Path) -> None:
    old, new = Wordbag("old", 512), Wordbag("new", 768)
    async with opened(tmp_path, old, new) as store:
        await store.upsert("demo", "faq", DOCUMENTS[:20])
        table = await store._shelves.table("demo", "faq")
        await Reembedder("demo", "faq", table, new, 1000).step()
        new.fails = True
        await store.upsert("demo", "faq", DOCUMENTS[20:])
        await check_finds(store, 33)
        with pytest.raises(Unavailable, match="demo/faq"):
            await store.reembed(new)
        assert store.reembedding()[0].problem
        await check_finds(store, 12)
        new.fails = False
        await store.reembed(new)
        await check_whole(tmp_path, new)


async def test_another_process_that_knows_nothing_of_it(tmp_path: Path) -> None:
    old, new = Wordbag("old", 512), Wordbag("new", 768)
    async with opened(tmp_path, old) as there, opened(tmp_path, old, new) as here:
        await there.upsert("demo", "faq", DOCUMENTS[:30])  # its layout is from before, all along
        table = await here._shelves.table("demo", "faq")
        doing = Reembedder("demo", "faq", table, new, 1000)
        await doing.step()
        await there.upsert("demo", "faq", DOCUMENTS[30:])
        await there.remove("demo", "faq", "d/3")
        while await doing.step() != "switch":
            pass
        with pytest.raises(Unavailable, match="no new"):  # it can't embed for it, and says so
            await there.search("demo", "faq", "number7", limit=3)
        await doing.run()
        await check_finds(here, 31)
        assert "d/3" not in await here.documents("demo", "faq")
    await check_whole(tmp_path, new)


async def test_a_row_without_its_vector_is_found_by_words_and_made_whole(tmp_path: Path) -> None:
    old, new = Wordbag("old", 512), Wordbag("new", 768)
    async with opened(tmp_path, old, new) as store:
        await store.upsert("demo", "faq", DOCUMENTS[:5])
        table = await store._shelves.table("demo", "faq")
        passage = (await store.search("demo", "faq", "number2", limit=1, mode="bm25"))[0].passage
        await table.replace(["d/2"], [passage], ["h"], table.layout, {})
        (hit,) = await store.search("demo", "faq", "number2", limit=1, mode="bm25")
        assert hit.passage == passage and hit.similarity == 0.0
        await store.reembed(old)
        await check_whole(tmp_path, old)


async def test_tables_from_before_embedders_were_marked(tmp_path: Path) -> None:
    minilm = Wordbag(UNMARKED_EMBEDDER, 512)
    texts = [pa.field(name, pa.string(), nullable=False) for name in ("id", *lance_columns.TEXTS)]
    vector = pa.field("vector", pa.list_(pa.float32(), 512), nullable=False)
    words = [f"Case {n}\nCase number{n} is about money" for n in range(9)]
    columns = {
        "id": [f"d/{n}#0" for n in range(9)],
        "document": [f"d/{n}" for n in range(9)],
        "title": [f"Case {n}" for n in range(9)],
        "text": [text.partition("\n")[2] for text in words],
        "words": words,
        "hash": ["h"] * 9,
        "vector": lance_columns.array_of(minilm.vectors(words)),
    }
    database = await lancedb.connect_async(f"{tmp_path}/demo")
    await database.create_table("faq", pa.table(columns, schema=pa.schema([*texts, vector])))
    async with opened(tmp_path, new := Wordbag("new", 768), minilm) as store:
        await check_finds(store, 4)
        await store.upsert("demo", "faq", [document(20)])
        await store.reembed(new)
        await check_finds(store, 20)
        await check_finds(store, 4)


async def test_orders_are_remembered_and_never_change(tmp_path: Path) -> None:
    orders = LanceOrders(str(tmp_path))
    assert await orders.wanted() is None and await orders.find("a@1") is None
    one, two = (Version(model="a", name=name, engine="minilm", source="/w") for name in ("1", "2"))
    for version in (one, two, one):
        await orders.want(version)
        assert await LanceOrders(str(tmp_path)).wanted() == version
    assert await orders.find("a@2") == two
    with pytest.raises(Conflict):
        await orders.want(Version(model="a", name="1", engine="minilm", source="/elsewhere"))


async def test_an_unknown_embedder_is_an_error_that_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path, Wordbag("old", 512)) as store:
        await store.upsert("demo", "faq", DOCUMENTS[:3])
    store = LanceKnowledge(str(tmp_path), Wordbag("other", 512))
    with pytest.raises(FlotillaError, match="old"):
        await store.search("demo", "faq", "money", limit=3)
    await store.close()
