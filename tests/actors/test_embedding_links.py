"""Embedders behind real links: opened when asked for, asked elsewhere when one dies, batched at the replica."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from actors.serving import embedding
from actors.serving.shelf import HELD_MAX
from flotilla.core.errors import Conflict, Misconfigured, Overloaded, Unavailable
from flotilla.core.ports import Vectors
from flotilla.core.versions import Version
from models.batching import Batches, Item
from models.embedder import BatchedEmbedder
from tests.replicas import replicas

pytestmark = pytest.mark.timeout(30)


class Lengths:
    """An encoder whose vectors say how long the text is, and which notes its runs."""

    dimensions = 2

    def __init__(self) -> None:
        self.runs: list[int] = []

    def prepare(self, inputs: list[str]) -> list[Item]:
        return [Item(text, 1 + len(text)) for text in inputs]

    def run(self, values: list[str]) -> Vectors:
        self.runs.append(len(values))
        return np.array([[len(value), 1.0] for value in values], np.float32)


def version(name: str, **more: str) -> Version:
    return Version(model="lengths", name=name, engine="minilm", **more)


class Opened(list[BatchedEmbedder]):
    """Opens embedders of `Lengths`; a version named `broken` can't be."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Lengths()

    async def __call__(self, version: Version) -> BatchedEmbedder:
        if version.name == "broken":
            raise Misconfigured("Those are no weights.", field="source")
        batches = Batches(version.id, lambda: self.encoder, waiting_max=1024)
        self.append(BatchedEmbedder(version.id, 2, batches))
        return self[-1]


async def test_texts_come_back_in_their_order_however_many_parts_they_went_in() -> None:
    async with replicas(Opened(), "e-0", "e-1") as made:
        embedder = await made.embedder(version("1"))
        texts = ["x" * (n % 97) for n in range(3 * embedding.TEXTS_MAX + 5)]
        vectors = await embedder.embed(texts)
        assert vectors[:, 0].tolist() == [len(text) for text in texts]
        assert (await embedder.embed([])).shape == (0, 2)
        assert embedder.dimensions == 2


async def test_requests_of_many_callers_share_runs_at_the_replica() -> None:
    opened = Opened()
    async with replicas(opened, "e-0") as made:
        askers = [await made.embedder(version("1")) for _ in range(4)]
        embedded = await asyncio.gather(*(askers[n % 4].embed(["x" * n]) for n in range(200)))
    assert [int(one[0, 0]) for one in embedded] == list(range(200))
    assert sum(opened.encoder.runs) == 200 and len(opened.encoder.runs) < 100


async def test_a_replica_opens_what_it_is_asked_for_once() -> None:
    async with replicas(Opened(), "e-0") as made:
        for _ in range(2):
            one, two = await asyncio.gather(made.embedder(version("1")), made.embedder(version("2")))
            await asyncio.gather(one.embed(["a"]), two.embed(["a"]))
        assert sorted(made.opened) == ["e-0 lengths@1", "e-0 lengths@2"]


async def test_a_replica_that_came_later_opens_it_by_itself() -> None:
    async with replicas(Opened(), "e-0") as made:
        embedder = await made.embedder(version("1"))
        await made.start("e-1")
        await made.kill("e-0")
        assert (await embedder.embed(["abc"]))[0, 0] == 3
        assert made.opened == ["e-0 lengths@1", "e-1 lengths@1"]


async def test_when_a_replica_dies_another_one_is_asked() -> None:
    async with replicas(Opened(), "e-0", "e-1", "e-2") as made:
        embedder = await made.embedder(version("1"))
        await made.kill("e-0")
        await made.kill("e-2")
        assert [(await embedder.embed(["ab"]))[0, 0] for _ in range(8)] == [2] * 8
        await made.kill("e-1")
        with pytest.raises(Unavailable):
            await embedder.embed(["ab"])


async def test_without_replicas_it_is_unavailable() -> None:
    async with replicas(Opened()) as made:
        with pytest.raises(Unavailable, match="No embedder is alive"):
            await made.embedder(version("1"))


async def test_what_cannot_be_opened_says_why_and_leaves_the_others() -> None:
    async with replicas(Opened(), "e-0") as made:
        embedder = await made.embedder(version("1"))
        for _ in range(2):
            with pytest.raises(Misconfigured) as refused:
                await made.embedder(version("broken"))
            assert refused.value.field == "source"
        assert (await embedder.embed(["a"])).shape == (1, 2)


async def test_a_version_never_changes() -> None:
    async with replicas(Opened(), "e-0") as made:
        await made.embedder(version("1"))
        with pytest.raises(Conflict):
            await made.embedder(version("1", source="/elsewhere"))


async def test_the_least_recently_used_makes_room() -> None:
    opened = Opened()
    async with replicas(opened, "e-0") as made:
        for n in range(HELD_MAX + 1):
            await (await made.embedder(version(str(n)))).embed(["a"])
        with pytest.raises(Unavailable):
            await opened[0].embed(["a"])  # closed
        again = await made.embedder(version("0"))
        assert (await again.embed(["abcd"]))[0, 0] == 4
        assert made.opened.count("e-0 lengths@0") == 2


async def test_a_full_queue_sheds_over_the_link() -> None:
    opened = Opened()
    async with replicas(opened, "e-0") as made:
        embedder = await made.embedder(version("1"))

        async def flood() -> list[BaseException | Vectors]:
            asks: Sequence = [embedder.embed(["x" * 300] * 200) for _ in range(60)]
            return await asyncio.gather(*asks, return_exceptions=True)

        came = await flood()
        assert any(isinstance(one, Overloaded) for one in came)
        assert all(isinstance(one, Overloaded | np.ndarray) for one in came)
        assert (await embedder.embed(["after"]))[0, 0] == 5
