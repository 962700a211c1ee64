"""Small embedders for tests: a text's vector is its words, each hashed to a place. They have a queue for the
event loop to turn in, and may fail."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Sequence

import numpy as np

from flotilla.core.errors import Unavailable
from flotilla.core.ports import Vectors


class Wordbag:
    """Implements `Embedder`. `name` salts the places, so that vectors of two of them mean nothing to each
    other."""

    def __init__(self, name: str, dimensions: int, *, pause_s: float = 0.0) -> None:
        self.name = name
        self.dimensions = dimensions
        self.pause_s = pause_s
        self.texts = 0
        self.fails = False
        self.closed = False

    async def embed(self, texts: Sequence[str]) -> Vectors:
        await asyncio.sleep(self.pause_s)
        if self.fails or self.closed:
            raise Unavailable(f"{self.name} is out of order.")
        self.texts += len(texts)
        return self.vectors(texts)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        vectors = np.full((len(texts), self.dimensions), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                vectors[row, zlib.crc32(f"{self.name} {word}".encode()) % self.dimensions] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        self.closed = True
