"""The contract of `Embedder`, with the real weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

import models.embedder
from flotilla.core.errors import Overloaded, Unavailable
from models.embedder import PATIENCE_S, Engine, MiniLM, Waiting, next_run

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXTS = [
    "How do I close my credit card?",
    "hello",
    "",
    "Ünïcode, emoji 😀, 漢字 and naïve café",
    "The annual fee is $95 and is waived for the first year. " * 40,
    "card " * 254,
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def embedder() -> AsyncIterator[MiniLM]:
    embedder = MiniLM()
    await embedder.ping()
    yield embedder
    await embedder.close()


async def test_agrees_with_sentence_transformers(embedder: MiniLM) -> None:
    def reference() -> np.ndarray:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(models.embedder._weights_folder()), device="cpu")
        return model.encode(TEXTS, normalize_embeddings=True)

    expected = await asyncio.to_thread(reference)
    cosines = (await embedder.embed(TEXTS) * expected).sum(axis=1)
    assert (cosines > 0.9999).all(), cosines


async def test_shape_type_and_length(embedder: MiniLM) -> None:
    vectors = await embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


async def test_no_texts_give_no_rows(embedder: MiniLM) -> None:
    assert (await embedder.embed([])).shape == (0, embedder.dimensions)


async def test_a_text_means_the_same_in_any_company(embedder: MiniLM) -> None:
    texts = [f"{'money ' * (n % 60)}account number {n}" for n in range(100)]
    together = await embedder.embed(texts)
    for n in (0, 17, 59, 99):
        alone = (await embedder.embed([texts[n]]))[0]
        assert together[n] @ alone > 0.9999


async def test_concurrent_requests_share_runs(embedder: MiniLM, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run = Engine.run

    def counted(self: Engine, tokens: list[list[int]]) -> np.ndarray:
        sizes.append(len(tokens))
        return run(self, tokens)

    monkeypatch.setattr(Engine, "run", counted)
    vectors = await asyncio.gather(*(embedder.embed([f"question {n}"]) for n in range(40)))
    assert sum(sizes) == 40
    assert len(sizes) < 20
    assert len({vector.tobytes() for vector in vectors}) == 40


async def test_past_the_bound_it_sheds() -> None:
    embedder = MiniLM(waiting_texts_max=3)
    with pytest.raises(Overloaded) as shed:
        await embedder.embed(["a", "b", "c", "d"])
    assert shed.value.retry_after_s
    assert (await embedder.embed(["a", "b", "c"])).shape == (3, 384)
    await embedder.close()


async def test_who_stops_waiting_does_not_disturb_others(embedder: MiniLM) -> None:
    gone = asyncio.create_task(embedder.embed(["gone " * 200] * 8))
    stays = asyncio.create_task(embedder.embed(["stays"]))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).shape == (1, 384)
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_failed_run_is_reported_and_the_next_one_works(
    embedder: MiniLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Engine, tokens: list[list[int]]) -> np.ndarray:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "run", broken)
        with pytest.raises(Unavailable, match="out of memory"):
            await embedder.embed(["a"])
    assert (await embedder.embed(["a"])).shape == (1, 384)


async def test_closing_fails_what_waits_and_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = MiniLM()
    await embedder.ping()
    closing = asyncio.Event()
    run = Engine.run

    def last(self: Engine, tokens: list[list[int]]) -> np.ndarray:
        loop.call_soon_threadsafe(closing.set)
        return run(self, tokens)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(Engine, "run", last)
    waiting = [asyncio.create_task(embedder.embed(["long " * 200] * 32)) for _ in range(4)]
    await closing.wait()
    await embedder.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert any(isinstance(result, Unavailable) for result in results)
    assert not any(isinstance(result, asyncio.CancelledError) for result in results)
    for call in (embedder.ping(), embedder.embed(["a"])):
        with pytest.raises(Unavailable):
            await call


async def test_a_run_takes_the_shortest_that_fit_but_first_who_waited_too_long() -> None:
    def text(tokens: int, since_s: float = 0.0) -> Waiting:
        return Waiting([0] * tokens, since_s, asyncio.get_running_loop().create_future())

    waiting = [text(100), text(10), text(250), text(12)]
    assert [len(chosen.ids) for chosen in next_run(waiting, 0.0, 210)] == [10, 12]
    assert [len(chosen.ids) for chosen in next_run(waiting, 0.0, 1000)] == [10, 12, 100, 250]
    assert [len(chosen.ids) for chosen in next_run([text(300)], 0.0, 200)] == [300]
    late = [*waiting, text(200, since_s=-PATIENCE_S - 1)]
    assert [len(chosen.ids) for chosen in next_run(late, 0.0, 1000)] == [200]
