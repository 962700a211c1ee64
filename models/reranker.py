"""A cross-encoder that reads the question and a passage together and says how well they go together.

Better than comparing vectors, and some hundred times dearer: it is for the few best of a search. No package
carries weights for one, so a fleet has none until `FLOTILLA_RERANKER` names a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from models.batching import WAITING_MAX, Batches, Encoder
from models.torch_encoders import PairEncoder, check_folder


class CrossEncoderReranker:
    """Implements `Reranker`; pairs of concurrent searches share runs."""

    def __init__(
        self, name: str, load: Callable[[], Encoder], *, waiting_pairs_max: int = WAITING_MAX
    ) -> None:
        self._name = name
        self._batches = Batches(name, load, waiting_max=waiting_pairs_max)

    @classmethod
    def of_folder(cls, folder: Path, *, name: str = "", threads: int = 2) -> CrossEncoderReranker:
        """Raises `Misconfigured` if there are no weights in `folder`; they are loaded when first used."""
        check_folder(folder, "config.json")
        return cls(name or folder.name, lambda: PairEncoder(folder, threads))

    @property
    def name(self) -> str:
        return self._name

    @property
    def waiting(self) -> int:
        return len(self._batches)

    def __repr__(self) -> str:
        return f"<CrossEncoderReranker {self._batches!r}>"

    async def rank(self, query: str, texts: Sequence[str]) -> list[float]:
        """Raises `Overloaded` if too many pairs wait, `Unavailable` if the model fails or once closed."""
        rows = await self._batches.results([(query, text) for text in texts])
        return [float(row) for row in rows]

    async def ping(self) -> None:
        await self._batches.loaded()

    async def close(self) -> None:
        await self._batches.close()
