"""What every place that weights are fetched from can do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from models.checksums import matters

FILES_MAX = 1000
READ_BY_PEOPLE = ("README", "LICENSE", "LICENCE", "NOTICE")


class RemoteFile(msgspec.Struct, frozen=True, order=True):
    """`tag` is another one when the content is."""

    name: str
    size: int
    tag: str = ""


class Listing(msgspec.Struct, frozen=True):
    """`tag` stands for all the files as they are now."""

    files: tuple[RemoteFile, ...]
    tag: str

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


class Remote(Protocol):
    """`pinned` is what the address itself says of the content, so that nobody need be asked; "" if it may
    change."""

    @property
    def pinned(self) -> str: ...

    async def listing(self) -> Listing:
        """Raises `Misconfigured`, `Unavailable`."""
        ...

    async def bring(self, listing: Listing, folder: Path, progress: Callable[[int], None]) -> None:
        """Brings into `folder` what isn't there yet; `progress` gets the bytes of each step. Raises as
        above, and `OSError` for the disk; what has come stays."""
        ...


def wanted(name: str) -> bool:
    """What is fetched: what matters to the model, and what people read of it."""
    return matters(name) or ("/" not in name and name.upper().startswith(READ_BY_PEOPLE))
