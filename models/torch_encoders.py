"""Encoders of the library sentence-transformers: any folder of weights that it reads. Imports torch, which
takes seconds, when one is made and not before. Nothing is looked up on a model hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flotilla.core.errors import Misconfigured
from flotilla.core.ports import Vectors
from models.batching import Item

Scores = npt.NDArray[np.float32]


def check_folder(folder: Path, *configs: str) -> None:
    """Raises `Misconfigured` unless the folder has one of `configs`."""
    if not any((folder / name).is_file() for name in configs):
        raise Misconfigured(
            f"{folder} has no {' or '.join(configs)}.",
            field="source",
            next="Name a folder in Hugging Face's layout.",
        )


class SentenceEncoder:
    """Rows of a bi-encoder: pooled as its folder says, scaled to length 1."""

    def __init__(self, folder: Path, threads: int) -> None:
        library = _library(threads)
        self._model: Any = library.SentenceTransformer(str(folder), device=_device(), local_files_only=True)
        self.dimensions: int = self._model.get_embedding_dimension()

    def prepare(self, inputs: list[str]) -> list[Item]:
        lengths = _lengths(self._model, inputs)
        return [Item(text, tokens) for text, tokens in zip(inputs, lengths, strict=True)]

    def run(self, values: list[str]) -> Vectors:
        return self._model.encode(
            values, batch_size=len(values), normalize_embeddings=True, show_progress_bar=False
        )


class PairEncoder:
    """A score for each pair of a query and a text, by a cross-encoder with one label."""

    def __init__(self, folder: Path, threads: int) -> None:
        library = _library(threads)
        self._model: Any = library.CrossEncoder(str(folder), device=_device(), local_files_only=True)
        if self._model.num_labels != 1:
            raise Misconfigured(
                f"The cross-encoder in {folder} has {self._model.num_labels} labels; a reranker has one.",
                field="source",
            )

    def prepare(self, inputs: list[tuple[str, str]]) -> list[Item]:
        lengths = _lengths(self._model, inputs)
        return [Item(pair, tokens) for pair, tokens in zip(inputs, lengths, strict=True)]

    def run(self, values: list[tuple[str, str]]) -> Scores:
        return self._model.predict(values, batch_size=len(values), show_progress_bar=False)


def _lengths(model: Any, inputs: list[Any]) -> list[int]:
    """In tokens. The library tokenises once more in a run, which is some 2 % of it: its own way into the
    model holds for any folder."""
    tokens = model.tokenizer(inputs, truncation=True, max_length=model.max_seq_length)["input_ids"]
    return [len(ids) for ids in tokens]


def _library(threads: int) -> Any:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import sentence_transformers  # noqa: PLC0415
        import torch  # noqa: PLC0415
    except ImportError as missing:
        raise Misconfigured(
            f"This engine needs the package sentence-transformers: {missing}.",
            field="engine",
            next="Run `uv pip install sentence-transformers`, or use the engine minilm.",
        ) from missing
    torch.set_num_threads(threads)
    return sentence_transformers


def _device() -> str:
    import torch  # noqa: PLC0415

    return "cuda" if torch.cuda.is_available() else "cpu"
