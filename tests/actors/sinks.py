"""A sink that keeps what it gets."""

from __future__ import annotations

import asyncio

from flotilla.core.errors import FlotillaError


class Got:
    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.error: FlotillaError | None = None
        self.over = asyncio.Event()

    def item(self, body: bytes) -> None:
        self.frames.append(body)

    def ended(self, error: FlotillaError | None) -> None:
        self.error = error
        self.over.set()
