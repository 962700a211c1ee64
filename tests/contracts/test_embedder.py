"""The contract of `Embedder`, with the real weights: each engine, and a replica behind a real link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from safetensors.numpy import load_file, save_file

from flotilla.core.errors import Misconfigured, Overloaded, Refused, Unavailable
from flotilla.core.ports import Embedder
from flotilla.core.versions import Version
from models.batching import PATIENCE_S, Item, Waiting, next_run
from models.embedder import MiniLM, OnnxEncoder, packaged_weights
from models.embedders import DEFAULT, PACKAGED, open_embedder
from tests.replicas import a_replica

pytestmark = pytest.mark.asyncio(loop_scope="module")

TORCH = Version(model="all-MiniLM-L6-v2", name="torch", engine="sentence-transformers", source=PACKAGED)
TEXTS = [
    "How do I close my credit card?",
    "hello",
    "",
    "Ünïcode, emoji 😀, 漢字 and naïve café",
    "The annual fee is $95 and is waived for the first year. " * 40,
    "card " * 254,
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def minilm() -> AsyncIterator[MiniLM]:
    embedder = MiniLM()
    await embedder.ping()
    yield embedder
    await embedder.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def torched() -> AsyncIterator[Embedder]:
    embedder = await open_embedder(TORCH, threads=2)
    yield embedder
    await embedder.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def remote(minilm: MiniLM) -> AsyncIterator[Embedder]:
    async with a_replica(minilm) as (embedder, _):
        yield embedder


@pytest.fixture(params=["minilm", "torched", "remote"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return request.getfixturevalue(request.param)


async def test_agrees_with_the_library_itself(embedder: Embedder) -> None:
    def reference() -> np.ndarray:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(packaged_weights()), device="cpu")
        return model.encode(TEXTS, normalize_embeddings=True)

    expected = await asyncio.to_thread(reference)
    cosines = (await embedder.embed(TEXTS) * expected).sum(axis=1)
    assert (cosines > 0.9999).all(), cosines


async def test_shape_type_and_length(embedder: Embedder) -> None:
    vectors = await embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


async def test_no_texts_give_no_rows(embedder: Embedder) -> None:
    assert (await embedder.embed([])).shape == (0, embedder.dimensions)


async def test_a_text_means_the_same_in_any_company(embedder: Embedder) -> None:
    texts = [f"{'money ' * (n % 60)}account number {n}" for n in range(100)]
    together = await embedder.embed(texts)
    for n in (0, 17, 59, 99):
        alone = (await embedder.embed([texts[n]]))[0]
        assert together[n] @ alone > 0.9999


async def test_concurrent_requests_share_runs(minilm: MiniLM, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run = OnnxEncoder.run

    def counted(self: OnnxEncoder, tokens: list[list[int]]) -> np.ndarray:
        sizes.append(len(tokens))
        return run(self, tokens)

    monkeypatch.setattr(OnnxEncoder, "run", counted)
    vectors = await asyncio.gather(*(minilm.embed([f"question {n}"]) for n in range(40)))
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


async def test_who_stops_waiting_does_not_disturb_others(minilm: MiniLM) -> None:
    gone = asyncio.create_task(minilm.embed(["gone " * 200] * 8))
    stays = asyncio.create_task(minilm.embed(["stays"]))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).shape == (1, 384)
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_failed_run_is_reported_and_the_next_one_works(
    minilm: MiniLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: OnnxEncoder, tokens: list[list[int]]) -> np.ndarray:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(OnnxEncoder, "run", broken)
        with pytest.raises(Unavailable, match="out of memory"):
            await minilm.embed(["a"])
    assert (await minilm.embed(["a"])).shape == (1, 384)


async def test_closing_fails_what_waits_and_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = MiniLM()
    await embedder.ping()
    closing = asyncio.Event()
    run = OnnxEncoder.run

    def last(self: OnnxEncoder, tokens: list[list[int]]) -> np.ndarray:
        loop.call_soon_threadsafe(closing.set)
        return run(self, tokens)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(OnnxEncoder, "run", last)
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
        return Waiting(Item(None, tokens), since_s, asyncio.get_running_loop().create_future())

    waiting = [text(100), text(10), text(250), text(12)]
    assert [chosen.item.tokens for chosen in next_run(waiting, 0.0, 210)] == [10, 12]
    assert [chosen.item.tokens for chosen in next_run(waiting, 0.0, 1000)] == [10, 12, 100, 250]
    assert [chosen.item.tokens for chosen in next_run([text(300)], 0.0, 200)] == [300]
    late = [*waiting, text(200, since_s=-PATIENCE_S - 1)]
    assert [chosen.item.tokens for chosen in next_run(late, 0.0, 1000)] == [200]


async def test_a_version_is_named_by_its_id_and_can_be_other_weights(tmp_path: Path) -> None:
    weights = load_file(packaged_weights() / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((packaged_weights() / name).read_bytes())
    weights["embeddings.LayerNorm.bias"] = weights["embeddings.LayerNorm.bias"] + 0.5
    save_file(weights, tmp_path / "model.safetensors")
    other = await open_embedder(
        Version(model="mine", name="1", engine="minilm", source=str(tmp_path)), threads=1
    )
    default = await open_embedder(DEFAULT, threads=1)
    assert (other.name, default.name) == ("mine@1", "all-MiniLM-L6-v2@1")
    a, b = await other.embed(["a gold card"]), await default.embed(["a gold card"])
    assert float(a[0] @ b[0]) < 0.99
    await other.close()
    await default.close()


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        ({"engine": "vllm", "source": PACKAGED}, Refused, "engine"),
        ({"engine": "minilm", "source": "/nowhere"}, Misconfigured, "source"),
        ({"engine": "sentence-transformers", "source": ""}, Misconfigured, "source"),
        ({"engine": "minilm", "source": PACKAGED, "checksum": "0" * 64}, Misconfigured, "checksum"),
    ],
)
async def test_a_version_that_cannot_be_opened_says_why(
    changes: dict[str, str], error: type[Exception], field: str
) -> None:
    with pytest.raises(error) as refused:
        await open_embedder(Version(model="bad", name="1", **changes), threads=1)  # type: ignore[arg-type]
    assert refused.value.field == field  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", ["minilm", "sentence-transformers"])
async def test_truncated_weights_are_refused(tmp_path: Path, engine: str) -> None:
    for path in packaged_weights().iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Misconfigured) as refused:
        version = Version(model="cut", name="1", engine=engine, source=str(tmp_path))  # type: ignore[arg-type]
        await open_embedder(version, threads=1)
    assert refused.value.field == "source"
