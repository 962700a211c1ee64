"""The second look: a real cross-encoder with random weights, behind a link, and when it fails or is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from actors.serving.embedding import RemoteReranker
from flotilla.core.errors import Misconfigured, Refused, Unavailable
from flotilla.core.knowledge import Document
from flotilla.core.versions import Version
from flotilla.stores.lance import LanceKnowledge
from flotilla.stores.lance_ranking import SecondLook
from models.embedder import packaged_weights
from models.embedders import open_reranker
from tests.replicas import replicas
from tests.wordbags import Wordbag

pytestmark = pytest.mark.timeout(120)
TEXTS = [f"Text number {n} speaks of cards and of {'fees ' * n}" for n in range(12)]


def make_weights(folder: Path, labels: int = 1) -> Path:
    """A tiny BERT with random weights and MiniLM's words."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(3)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=labels
    )
    config.vocab_size = 30522
    config.initializer_range = 0.5  # so that scores differ
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(packaged_weights()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("cross"))


def version(source: Path) -> Version:
    return Version(model="cross", name="1", engine="cross-encoder", source=str(source))


async def test_scores_are_the_librarys_own_alone_and_among_others(weights: Path) -> None:
    from sentence_transformers import CrossEncoder

    query = "what does a card cost?"
    expected = CrossEncoder(str(weights), device="cpu").predict([(query, text) for text in TEXTS])
    reranker = await open_reranker(version(weights), threads=1)
    alone, *others = await asyncio.gather(
        reranker.rank(query, TEXTS), *(reranker.rank(f"question {n}", TEXTS[:3]) for n in range(8))
    )
    assert alone == pytest.approx(expected.tolist(), abs=1e-4)
    assert max(alone) - min(alone) > 1e-3
    assert all(len(scores) == 3 for scores in others)
    assert await reranker.rank(query, []) == []
    await reranker.close()
    with pytest.raises(Unavailable):
        await reranker.rank(query, TEXTS)


async def test_behind_a_link(weights: Path) -> None:
    here = await open_reranker(version(weights), threads=1)
    expected = await here.rank("a question", TEXTS)
    await here.close()

    async def no_embedder(_: Version) -> Wordbag:
        raise AssertionError

    async with replicas(no_embedder, "e-0") as made:
        remote = RemoteReranker(made.links, made.roster, version(weights))
        assert await remote.rank("a question", TEXTS) == pytest.approx(expected, abs=1e-4)
        await remote.ping()
        assert made.opened == ["e-0 cross@1"]


async def test_what_is_no_reranker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as missing:
        await open_reranker(version(tmp_path), threads=1)
    assert missing.value.field == "source"
    with pytest.raises(Misconfigured, match="3 labels"):
        await open_reranker(version(make_weights(tmp_path, labels=3)), threads=1)
    with pytest.raises(Refused) as other:
        await open_reranker(Version(model="m", name="1", engine="minilm"), threads=1)
    assert other.value.field == "engine"


class Judge:
    """Implements `Reranker`: the longer the better, unless it is in a mood."""

    name = "judge"

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.mood = "fine"

    async def rank(self, query: str, texts: Sequence[str]) -> list[float]:
        self.asked.append(len(texts))
        match self.mood:
            case "slow":
                await asyncio.Event().wait()
            case "broken":
                raise Unavailable("It is broken.")
            case "odd":
                return [float("nan")] * len(texts)
        return [float(len(text)) for text in texts]

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


async def test_searches_are_ordered_by_it_or_stay_as_they_were(tmp_path: Path) -> None:
    judge = Judge()
    bag = Wordbag("bag", 512)
    plain, store = (LanceKnowledge(str(tmp_path), bag, reranker=r) for r in (None, judge))
    store._second_look = SecondLook(judge, timeout_s=0.05)
    documents = [Document(id=f"d{n}", title="", text=f"Card {n} {'is good ' * (n % 50)}.") for n in range(60)]
    await store.upsert("demo", "faq", documents)
    await store.settle()
    first = [hit.passage.id for hit in await plain.search("demo", "faq", "card", limit=40)]

    hits = await store.search("demo", "faq", "card", limit=5)
    lengths = [len(hit.passage.text) for hit in hits]
    assert lengths == sorted(lengths, reverse=True) and len(hits) == 5
    assert {hit.passage.id for hit in hits} <= set(first[:30])
    assert [hit.score for hit in hits] == [1 / place for place in range(1, 6)]
    assert judge.asked == [30]
    all_hits = await store.search("demo", "faq", "card", limit=40)
    assert [hit.passage.id for hit in all_hits[30:]] == first[30:]
    await store.search("demo", "faq", "card", limit=5, mode="bm25")
    assert len(judge.asked) == 2  # only hybrid searches are looked at twice

    for n, mood in enumerate(("slow", "broken", "odd"), start=1):
        judge.mood = mood
        hits = await store.search("demo", "faq", "card", limit=10)
        assert [hit.passage.id for hit in hits] == first[:10]
        assert store.unranked == n
    await plain.close()
    await store.close()


async def test_one_that_keeps_failing_is_left_alone_for_a_while(tmp_path: Path) -> None:
    judge = Judge()
    judge.mood = "broken"
    store = LanceKnowledge(str(tmp_path), Wordbag("bag", 512), reranker=judge)
    await store.upsert("demo", "faq", [Document(id="d", title="", text="A card.")])
    for _ in range(12):
        assert len(await store.search("demo", "faq", "card", limit=3)) == 1
    assert len(judge.asked) == 5 and store.unranked == 12
    await store.close()
