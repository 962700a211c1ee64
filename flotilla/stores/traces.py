"""Spans in files, a JSON object a line: written by each process of a fleet, read by `flotilla trace`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from flotilla.core.tracing import Span

FILE_BYTES_MAX = 16 << 20  # of a process; then the older half goes
FILES_MAX = 32  # those of processes that ended are kept until there are so many

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Span).decode


class JsonlTracer:
    """Implements `Tracer`: appends to `traces-ROLE-PID.jsonl` in `folder`, from the first span on."""

    def __init__(self, folder: Path, role: str, bytes_max: int = FILE_BYTES_MAX) -> None:
        self._path = folder / f"traces-{role}-{os.getpid()}.jsonl"
        self._half = bytes_max // 2
        self._file: int | None = None
        self._size = 0
        self.lost = 0

    def __repr__(self) -> str:
        return f"<JsonlTracer {self._path}: {self._size} bytes, {self.lost} spans lost>"

    def write(self, span: Span) -> None:
        try:
            self._append(_encode(span) + b"\n")
        except OSError:  # a full disk, say: turns go on
            self.lost += 1

    def _append(self, line: bytes) -> None:
        if self._size + len(line) > self._half:
            self._turn()
        if self._file is None:
            self._file = self._open()
        self._size += os.write(self._file, line)

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for old in sorted(_files(self._path.parent), key=_age)[: -FILES_MAX + 1]:
            old.unlink(missing_ok=True)
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _turn(self) -> None:
        """The file becomes the older half, in place of the one before."""
        self.close()
        self._size = 0
        self._path.rename(self._path.with_suffix(".old.jsonl"))

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read(folder: Path) -> Iterator[Span]:
    """All spans of this machine. A line that a process was killed over is left out."""
    for path in _files(folder):
        with path.open("rb") as lines:
            for line in lines:
                try:
                    yield _decode(line)
                except msgspec.DecodeError:
                    continue


def _files(folder: Path) -> list[Path]:
    return list(folder.glob("traces-*.jsonl"))


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
