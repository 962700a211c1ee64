"""The contract of `Knowledge`, on the real LanceDB with the real weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import get_args

import pytest
import pytest_asyncio

from flotilla.connectors.documents import read as documents_in
from flotilla.core.errors import NotFound, Refused, TooLarge, Unavailable
from flotilla.core.knowledge import Document, Hit, SearchMode
from flotilla.core.ports import Vectors
from flotilla.core.versions import Version
from flotilla.stores.lance import DOCUMENT_CHARS_MAX, LanceKnowledge
from models.embedder import MiniLM
from models.embedders import PACKAGED, open_embedder

pytestmark = pytest.mark.asyncio(loop_scope="module")
MODES: tuple[SearchMode, ...] = get_args(SearchMode)


class Counting:
    """The real embedder, and how many texts it was given."""

    def __init__(self) -> None:
        self._real = MiniLM()
        self.name, self.dimensions, self.ping, self.close = "counting", 384, self._real.ping, self._real.close
        self.texts = 0

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.texts += len(texts)
        return await self._real.embed(texts)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def embedder() -> AsyncIterator[Counting]:
    embedder = Counting()
    yield embedder
    await embedder.close()


@pytest_asyncio.fixture(loop_scope="module")
async def store(tmp_path: Path, embedder: Counting) -> AsyncIterator[LanceKnowledge]:
    store = LanceKnowledge(str(tmp_path), embedder)
    yield store
    await store.close()


CARD = Document(id="cards/gold", title="Gold Card", text="The Gold Card costs 95 dollars a year.")
ATM = Document(id="accounts/atm", title="Cash machines", text="Withdrawals abroad cost three percent.")
LOST = Document(id="cards/lost", title="A lost card", text="Freeze a stolen card at once in the app.")


def ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.passage.document for hit in hits]


async def found(store: LanceKnowledge, query: str, mode: SearchMode = "bm25") -> list[str]:
    return ids(await store.search("demo", "faq", query, limit=50, mode=mode))


async def test_an_upsert_counts_what_it_did(store: LanceKnowledge) -> None:
    first = await store.upsert("demo", "faq", [CARD, ATM])
    assert (first.added, first.changed, first.unchanged, first.passages) == (2, 0, 0, 2)
    changed = Document(id=ATM.id, title=ATM.title, text="Withdrawals abroad are free.")
    second = await store.upsert("demo", "faq", [CARD, changed, LOST])
    assert (second.added, second.changed, second.unchanged, second.passages) == (1, 1, 1, 2)
    assert set(await store.documents("demo", "faq")) == {CARD.id, ATM.id, LOST.id}


async def test_unchanged_documents_cost_no_embedding(store: LanceKnowledge, embedder: Counting) -> None:
    await store.upsert("demo", "faq", [CARD, ATM])
    hashes, texts = await store.documents("demo", "faq"), embedder.texts
    assert (await store.upsert("demo", "faq", [CARD, ATM])).unchanged == 2
    assert embedder.texts == texts
    assert await store.documents("demo", "faq") == hashes


async def test_of_two_documents_with_one_id_the_last_counts(store: LanceKnowledge) -> None:
    await store.upsert(
        "demo", "faq", [CARD, Document(id=CARD.id, title="Gold", text="It is free of charge.")]
    )
    (hit,) = await store.search("demo", "faq", "gold", limit=5)
    assert hit.passage.text == "It is free of charge."


@pytest.mark.parametrize("mode", MODES)
async def test_search_finds_the_right_document_first(store: LanceKnowledge, mode: SearchMode) -> None:
    await store.upsert("demo", "faq", [CARD, ATM, LOST])
    assert (await found(store, "my card was stolen", mode))[0] == LOST.id
    hits = await store.search("demo", "faq", "what does the gold card cost?", limit=2, mode=mode)
    assert ids(hits)[0] == CARD.id
    assert len(hits) <= 2
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].passage.text in CARD.text


@pytest.mark.parametrize("mode", MODES)
async def test_similarity_is_the_cosine(store: LanceKnowledge, embedder: Counting, mode: SearchMode) -> None:
    await store.upsert("demo", "faq", [CARD, ATM, LOST])
    query = "what does a card cost abroad?"
    for hit in await store.search("demo", "faq", query, limit=5, mode=mode):
        a, b = await embedder.embed([query, f"{hit.passage.title}\n{hit.passage.text}"])
        assert hit.similarity == pytest.approx(max(0.0, float(a @ b)), abs=1e-4)


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("mode", MODES)
async def test_removed_text_is_not_found(store: LanceKnowledge, mode: SearchMode, settled: bool) -> None:
    await store.upsert("demo", "faq", [CARD, ATM, LOST])
    if settled:  # its words are then in the full-text index, not only in rows that are scanned
        await store.settle()
    assert await store.remove("demo", "faq", LOST.id)
    assert LOST.id not in await found(store, "freeze stolen card", mode)
    assert not await store.remove("demo", "faq", LOST.id)
    await store.settle()
    assert LOST.id not in await found(store, "freeze stolen card", mode)
    assert LOST.id not in await store.documents("demo", "faq")


@pytest.mark.parametrize("settled", [False, True])
async def test_replaced_text_is_not_found(store: LanceKnowledge, settled: bool) -> None:
    long = "\n\n".join(f"Paragraph {n} speaks of zebras. {'Money is money. ' * 30}" for n in range(5))
    await store.upsert("demo", "faq", [CARD, Document(id="animals", title="Animals", text=long)])
    if settled:
        await store.settle()
    await store.upsert(
        "demo", "faq", [Document(id="animals", title="Animals", text="It speaks of giraffes.")]
    )
    assert await found(store, "zebras") == []
    assert await found(store, "giraffes") == ["animals"]
    assert [hit.passage.text for hit in await store.search("demo", "faq", "animals", limit=9)][:1] == [
        "It speaks of giraffes."
    ]


async def test_a_search_sees_one_version_whole(store: LanceKnowledge) -> None:
    def version(word: str) -> Document:
        text = "\n\n".join(f"Part {n} is {word}. {'All about the animal. ' * 30}" for n in range(4))
        return Document(id="animals", title="Animals", text=text)

    await store.upsert("demo", "faq", [CARD, version("zebra")])

    async def write() -> None:
        for n in range(6):
            await store.upsert("demo", "faq", [version("giraffe" if n % 2 == 0 else "zebra")])

    writing = asyncio.create_task(write())
    searches = 0
    while not writing.done():
        hits = await store.search("demo", "faq", "part is about the animal", limit=50, mode="bm25")
        texts = [hit.passage.text for hit in hits if hit.passage.document == "animals"]
        assert len(texts) == 4
        assert all("zebra" in text for text in texts) or all("giraffe" in text for text in texts)
        searches += 1
    await writing
    assert searches > 5


async def test_tenants_and_collections_are_apart(store: LanceKnowledge) -> None:
    await store.upsert("acme", "faq", [CARD])
    await store.upsert("demo", "faq", [ATM])
    await store.upsert("demo", "news", [LOST])
    for mode in MODES:
        query = "card withdrawals stolen gold"
        assert ids(await store.search("acme", "faq", query, limit=50, mode=mode)) == [CARD.id]
        assert ids(await store.search("demo", "faq", query, limit=50, mode=mode)) == [ATM.id]
    assert not await store.remove("demo", "faq", CARD.id)
    assert set(await store.documents("acme", "faq")) == {CARD.id}


async def test_an_unknown_collection_is_not_found(store: LanceKnowledge) -> None:
    await store.upsert("acme", "faq", [CARD])
    for call in (
        store.search("demo", "faq", "card", limit=5),
        store.remove("demo", "faq", CARD.id),
        store.documents("demo", "faq"),
    ):
        with pytest.raises(NotFound) as problem:
            await call
        assert problem.value.field == "collection"


@pytest.mark.parametrize("name", ["", "a b", "../acme", "a/b", "Faq", "-a", "x" * 64, "a.b", "ä", "a\n"])
async def test_unsafe_names_are_refused(store: LanceKnowledge, name: str) -> None:
    with pytest.raises(Refused) as problem:
        await store.upsert("demo", name, [CARD])
    assert problem.value.field == "collection"
    with pytest.raises(Refused) as problem:
        await store.search(name, "faq", "card", limit=5)
    assert problem.value.field == "tenant"


async def test_bad_documents_and_queries_are_refused_by_field(store: LanceKnowledge) -> None:
    await store.upsert("demo", "faq", [CARD])
    for document, error, field in (
        (Document(id="", title="", text="a"), Refused, "id"),
        (Document(id="a", title="", text=" \n"), Refused, "text"),
        (Document(id="a", title="", text="a" * (DOCUMENT_CHARS_MAX + 1)), TooLarge, "text"),
    ):
        with pytest.raises(error) as problem:
            await store.upsert("demo", "faq", [ATM, document])
        assert problem.value.field == field
    assert set(await store.documents("demo", "faq")) == {CARD.id}
    for query, limit, error, field in (
        (" ", 5, Refused, "query"),
        ("a" * 20_000, 5, TooLarge, "query"),
        ("a", 0, Refused, "limit"),
        ("a", 100_000, Refused, "limit"),
    ):
        with pytest.raises(error) as problem:
            await store.search("demo", "faq", query, limit=limit)
        assert problem.value.field == field


@pytest.mark.parametrize("query", ["the of and", "'; drop table", '"gold AND (', "zzzzqqq", "😀", "+-*/"])
async def test_any_text_can_be_searched_for(store: LanceKnowledge, query: str) -> None:
    await store.upsert("demo", "faq", [CARD, ATM])
    for mode in MODES:
        await store.search("demo", "faq", query, limit=5, mode=mode)


async def test_ids_with_quotes_are_only_ids(store: LanceKnowledge) -> None:
    odd = Document(id="o'brien\" or true --", title="Odd", text="An odd name.")
    await store.upsert("demo", "faq", [CARD, odd])
    assert (await store.upsert("demo", "faq", [odd])).unchanged == 1
    assert await store.remove("demo", "faq", odd.id)
    assert set(await store.documents("demo", "faq")) == {CARD.id}


async def test_two_processes_ingest_the_same_without_doubles(tmp_path: Path, embedder: Counting) -> None:
    stores = [LanceKnowledge(str(tmp_path), embedder) for _ in range(3)]
    for n in range(3):
        documents = [
            Document(id=f"d{i}", title="Same", text=f"Version {n} of {i} mentions quokkas.") for i in range(5)
        ]
        await asyncio.gather(*(store.upsert("demo", "faq", documents) for store in stores))
        for store in stores:
            hits = await store.search("demo", "faq", "quokkas", limit=50, mode="bm25")
            assert sorted(hit.passage.text for hit in hits) == [document.text for document in documents]
    await asyncio.gather(*(store.close() for store in stores))


async def test_another_process_sees_a_removal_at_once(tmp_path: Path, embedder: Counting) -> None:
    here, there = (LanceKnowledge(str(tmp_path), embedder) for _ in range(2))
    await here.upsert("demo", "faq", [CARD, LOST])
    assert LOST.id in await found(there, "stolen")
    await here.remove("demo", "faq", LOST.id)
    assert LOST.id not in await found(there, "stolen")
    await asyncio.gather(here.close(), there.close())


async def test_upkeep_and_writers_do_not_stop_each_other(tmp_path: Path, embedder: Counting) -> None:
    store = LanceKnowledge(str(tmp_path), embedder, vectors_scanned_max=100)
    documents = [
        Document(id=f"d/{n}", title=f"Case {n}", text=f"Case number{n} is closed.") for n in range(300)
    ]
    parts = [documents[n : n + 60] for n in range(0, 300, 60)]
    await asyncio.gather(*(store.upsert("demo", "faq", part) for part in parts))
    await store.settle()
    assert len(await store.documents("demo", "faq")) == 300
    for mode in MODES:  # vectors now from an approximate index
        assert (await found(store, "Case 123: Case number123 is closed.", mode))[0] == "d/123"
    await store.remove("demo", "faq", "d/123")
    for mode in MODES:
        assert "d/123" not in await found(store, "number123", mode)
    await store.close()


async def test_a_store_that_cannot_be_reached_is_unavailable(tmp_path: Path, embedder: Counting) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    store = LanceKnowledge(str(blocked), embedder)
    for call in (store.ping(), store.upsert("demo", "faq", [CARD])):
        with pytest.raises(Unavailable):
            await call
    await store.close()


async def test_ping_and_reopening(tmp_path: Path, embedder: Counting) -> None:
    store = LanceKnowledge(str(tmp_path), embedder)
    await store.ping()
    await store.upsert("demo", "faq", [CARD])
    await store.close()
    again = LanceKnowledge(str(tmp_path), embedder)
    assert await found(again, "gold") == [CARD.id]
    await again.close()


async def test_the_same_weights_through_another_engine_find_the_same(tmp_path: Path) -> None:
    data = Path(__file__).parents[3] / "shared/data/rho_bank/documents.jsonl"
    bank = [d for d in documents_in(data) if isinstance(d, Document)][:60]
    queries = [f"{d.title}? {d.text[100:180]}" for d in bank[::3]]
    torch = await open_embedder(
        Version(model="minilm", name="torch", engine="sentence-transformers", source=PACKAGED), threads=2
    )
    onnx = MiniLM()
    store = LanceKnowledge(str(tmp_path), onnx)
    await store.upsert("demo", "faq", bank)

    async def top() -> list[list[str]]:
        return [
            [hit.passage.id for hit in await store.search("demo", "faq", query, limit=10, mode="vector")]
            for query in queries
        ]

    before = await top()
    await store.reembed(torch)
    after = await top()
    assert [ids[0] for ids in after] == [ids[0] for ids in before]
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(before, after, strict=True)]
    assert sum(shared) / len(shared) >= 0.99  # the tenth and the eleventh may be as near to each other
    (progress,) = store.reembedding()
    assert progress.switched and progress.done == progress.total == 60
    for closing in (store, torch, onnx):
        await closing.close()
