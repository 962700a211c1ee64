"""What a folder of weights consists of, and its checksum.

The checksum is the SHA-256 of a listing: for each file that matters (`matters`), in the order of its name's
bytes, the line `SHA-256 of the content, two spaces, name`. That is what sha256sum prints, so that anybody
can check it with `LC_ALL=C; sha256sum $(ls *.safetensors *.json … | sort) | sha256sum`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from flotilla.core.errors import Misconfigured

SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".tiktoken")
NAMES = frozenset({"merges.txt", "vocab.txt"})
READ_BYTES = 1 << 20
SETTLED_NS = 2_000_000_000


def matters(name: str) -> bool:
    """Whether a file is part of a model: weights, configuration, tokeniser; not what only people read."""
    plain = "/" not in name and not name.startswith(".") and name.isprintable() and "\\" not in name
    return plain and (name.endswith(SUFFIXES) or name in NAMES)


def files_of(folder: Path) -> list[Path]:
    """Those that matter, by name. Raises `Misconfigured` if `folder` can't be read."""
    try:
        found = [path for path in folder.iterdir() if matters(path.name) and path.is_file()]
    except OSError as error:
        raise unreadable(folder, error) from error
    return sorted(found, key=lambda path: path.name.encode())


def checksum_of(folder: Path, cache: Path | None = None) -> str:
    """64 hexadecimal digits. Reads every byte the first time; under `cache` it is remembered for files whose
    size and times have not changed since. Blocks: call it in a thread. Raises `Misconfigured`."""
    known = _Known(folder, cache)
    lines = [f"{known.digest(path)}  {path.name}\n" for path in files_of(folder)]
    known.keep()
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def unreadable(path: Path, error: OSError) -> Misconfigured:
    said = f"{path} can't be read: {error.strerror or error}."
    return Misconfigured(
        said, field="source", next="Check the path, and that the fleet's processes may read it."
    )


class _Entry(msgspec.Struct, frozen=True):
    stamp: tuple[int, ...]
    digest: str


class _Known:
    """The digests of a folder's files, kept in a file beside (never in a folder that may be read-only)."""

    def __init__(self, folder: Path, cache: Path | None) -> None:
        self._side = cache and cache / "checksums" / f"{_digest(str(folder.resolve()))[:32]}.json"
        self._before = self._read()
        self._now: dict[str, _Entry] = {}

    def _read(self) -> dict[str, _Entry]:
        try:
            return msgspec.json.decode(self._side.read_bytes(), type=dict[str, _Entry]) if self._side else {}
        except (OSError, msgspec.DecodeError):
            return {}  # hashed again

    def digest(self, path: Path) -> str:
        try:
            stamp = _stamp(path)
            entry = self._before.get(path.name)
            if entry is None or entry.stamp != stamp:
                entry = _Entry(stamp, _hash(path))
        except OSError as error:
            raise unreadable(path, error) from error
        # A file changed within the clock's tick of its reading would keep its times: it is hashed again.
        if time.time_ns() - stamp[1] > SETTLED_NS:
            self._now[path.name] = entry
        return entry.digest

    def keep(self) -> None:
        if self._side is None or self._now == self._before:
            return
        try:
            self._side.parent.mkdir(parents=True, exist_ok=True)
            partial = self._side.with_suffix(f".{os.getpid()}")
            partial.write_bytes(msgspec.json.encode(self._now))
            partial.rename(self._side)
        except OSError:
            return  # a full or read-only disk: hashed again the next time


def _stamp(path: Path) -> tuple[int, ...]:
    seen = path.stat()
    return seen.st_size, max(seen.st_mtime_ns, seen.st_ctime_ns), seen.st_mtime_ns, seen.st_ino


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            yield block


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
