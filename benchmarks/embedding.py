"""What does a replica cost an embedding, and what does batching across requests bring?

The same texts (passages of a bank's documents, questions of its customers) with the same weights, in rounds that
take turns: sentence-transformers called alone, in this process, with all texts at once and at the better of two
batch sizes; our replica, a process of its own behind a link, with the default engine and with
sentence-transformers as its engine. Then `CALLERS` callers with a question each, one after the other: at the
replica as it is, and at one that runs every text by itself. And one caller's question, embedded here and behind
the link: what a process of its own costs a search.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from actors.link import Links
from actors.listener import Listener
from actors.roster import Roster
from actors.serving.embedding import RemoteEmbedder, answer_embedder
from actors.serving.shelf import Shelf
from benchmarks.report import Result, arguments, report
from benchmarks.retrieval import DATA, questions
from flotilla.connectors import documents
from flotilla.core.clock import SystemClock
from flotilla.core.knowledge import Document
from flotilla.core.members import Member
from flotilla.core.policy.chunking import chunk
from flotilla.core.ports import Embedder
from flotilla.core.versions import Version
from flotilla.stores.lance_columns import words
from flotilla.stores.memory import MemoryDirectory
from models import batching
from models.embedder import packaged_weights
from models.embedders import DEFAULT, PACKAGED, open_embedder, open_reranker
from serve.log import logger

TOKEN = "benchmark"
THREADS = 2
CALLERS = 32
BATCH_SIZES = (32, 8)
SHARE_TARGET = 0.95
TORCH = Version(model="all-MiniLM-L6-v2", name="torch", engine="sentence-transformers", source=PACKAGED)

Timed = Callable[[], Awaitable[float]]
"""Does its work once; returns what it measured."""


# --- replicas ---


def serve_replica(version: Version, run_tokens_max: int, said: Connection) -> None:
    """The process of a replica: says its address, and ends when it is told to."""
    batching.RUN_TOKENS_MAX = run_tokens_max

    async def serve() -> None:
        embedders: Shelf[Embedder] = Shelf(partial(open_embedder, threads=THREADS))
        await embedders.open(version)
        rerankers = Shelf(partial(open_reranker, threads=THREADS))
        listener = Listener(answer_embedder(embedders, rerankers), TOKEN)
        said.send(await listener.start())
        await asyncio.to_thread(said.recv)

    asyncio.run(serve())


@asynccontextmanager
async def replica(
    version: Version, run_tokens_max: int = batching.RUN_TOKENS_MAX
) -> AsyncGenerator[RemoteEmbedder]:
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    process = spawning.Process(target=serve_replica, args=(version, run_tokens_max, there), daemon=True)
    process.start()
    links = Links(TOKEN)
    try:
        address = await asyncio.to_thread(here.recv)
        directory = MemoryDirectory()
        await directory.beat(Member(role="embedder", name="e-0", life="e", address=address))
        roster = Roster(directory, SystemClock(), logger("benchmark"), "embedder")
        await roster.refresh()
        yield await RemoteEmbedder.open(links, roster, version)
        here.send("end")
    finally:
        await links.aclose()
        await asyncio.to_thread(process.join, 10.0)


# --- measuring ---


def all_at_once(embed: Callable[[list[str]], Awaitable[Any]], texts: list[str]) -> Timed:
    """Sentences a second."""

    async def measured() -> float:
        start = time.perf_counter()
        await embed(texts)
        return len(texts) / (time.perf_counter() - start)

    return measured


def one_by_one(embedder: Embedder, texts: Sequence[str], callers: int) -> Timed:
    """Sentences a second of that many callers, each with one text at a time."""

    async def measured() -> float:
        left = iter(texts)

        async def caller() -> None:
            for text in left:
                await embedder.embed([text])

        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return len(texts) / (time.perf_counter() - start)

    return measured


def latency(embedder: Embedder, texts: Sequence[str]) -> Timed:
    """Median of one caller, in ms."""

    async def measured() -> float:
        times: list[float] = []
        for text in texts:
            start = time.perf_counter()
            await embedder.embed([text])
            times.append(1000 * (time.perf_counter() - start))
        return median(times)

    return measured


async def rounds(timed: dict[str, Timed], times: int) -> dict[str, list[float]]:
    """They take turns, so that what else the machine does falls on all of them alike."""
    found: dict[str, list[float]] = {name: [] for name in timed}
    for warm_up in timed.values():
        await warm_up()
    for _ in range(times):
        for name, measure in timed.items():
            found[name].append(await measure())
    return found


async def library(texts: list[str]) -> Callable[[list[str]], Awaitable[Any]]:
    """With the batch size, of its default and a smaller one, at which it is faster on this machine."""

    def load() -> Any:
        import torch  # noqa: PLC0415
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        torch.set_num_threads(THREADS)
        return SentenceTransformer(str(packaged_weights()), device="cpu", local_files_only=True)

    model = await asyncio.to_thread(load)
    encode = partial(asyncio.to_thread, model.encode, normalize_embeddings=True, show_progress_bar=False)
    ways = [partial(encode, batch_size=size) for size in BATCH_SIZES]
    await ways[0](texts[:8])
    speeds = [await all_at_once(way, texts)() for way in ways]
    return ways[speeds.index(max(speeds))]


async def measure(passages: list[str], asked: list[str], times: int) -> list[Result]:
    here = await open_embedder(DEFAULT, threads=THREADS)
    alone = await library(passages)
    try:
        async with replica(DEFAULT) as ours, replica(TORCH) as torch, replica(DEFAULT, 1) as single:
            timed = {
                "alone": all_at_once(alone, passages),
                "onnx": all_at_once(ours.embed, passages),
                "torch": all_at_once(torch.embed, passages),
                "batched": one_by_one(ours, asked * 4, CALLERS),
                "unbatched": one_by_one(single, asked * 4, CALLERS),
                "here": latency(here, asked),
                "linked": latency(ours, asked),
            }
            return results(await rounds(timed, times), len(passages), len(asked))
    finally:
        await here.close()


# --- results ---


def results(found: dict[str, list[float]], passages: int, asked: int) -> list[Result]:
    library = "sentence-transformers alone"

    def share(name: str, over: str) -> list[float]:
        return [a / b for a, b in zip(found[name], found[over], strict=True)]

    hop = [a - b for a, b in zip(found["linked"], found["here"], strict=True)]
    return [
        _result("replica_over_library", share("onnx", "alone"), "ratio", passages, target=SHARE_TARGET),
        _result("replica_same_engine_over_library", share("torch", "alone"), "ratio", passages, SHARE_TARGET),
        _result("replica", found["onnx"], "sentences/s", passages, peer=(library, found["alone"])),
        _result("replica_same_engine", found["torch"], "sentences/s", passages, peer=(library, found["alone"])),
        _result("batched_over_unbatched", share("batched", "unbatched"), "ratio", 4 * asked),
        _result(
            f"batched_{CALLERS}_callers", found["batched"], "sentences/s", 4 * asked,
            peer=("unbatched", found["unbatched"]),
        ),
        _result(
            "question_behind_link", found["linked"], "ms", asked, better="lower",
            peer=("in process", found["here"]),
        ),
        _result("hop", hop, "ms", asked, better="lower"),
    ]  # fmt: skip


def _result(
    measure: str,
    values: Sequence[float],
    unit: str,
    samples: int,
    target: float | None = None,
    *,
    better: Any = "higher",
    peer: tuple[str, Sequence[float]] | None = None,
) -> Result:
    middle = median(values)
    return Result(
        measure=measure,
        value=round(middle, 3),
        unit=unit,
        better=better,
        target=target,
        peer=peer[0] if peer else None,
        peer_value=round(median(peer[1]), 3) if peer else None,
        samples=samples * len(values),
        spread=round((max(values) - min(values)) / abs(middle), 3) if middle else None,
    )


def main() -> None:
    parser = arguments("embedding", "A replica against the library alone, and batched against unbatched.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with documents.jsonl and tasks.json")
    args: Any = parser.parse_args()
    bank = [d for d in documents.read(args.data / "documents.jsonl") if isinstance(d, Document)]
    passages = [words(passage) for document in bank for passage in chunk(document)]
    asked = [question.query[-200:] for question in questions(args.data / "tasks.json")]
    size, times = (48, 3) if args.quick else (128, 5)
    report("embedding", asyncio.run(measure(passages[:size], asked, times)), args.json)


if __name__ == "__main__":
    main()
