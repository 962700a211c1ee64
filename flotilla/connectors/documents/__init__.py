"""Reads files into documents, one format a module.

A module of this folder is a format: it says which `SUFFIXES` it takes and has a `parse(name, content)` that
yields documents, or `Unreadable` for a part that it can't read. Adding a format is adding a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from flotilla.core.knowledge import Document

FILE_BYTES_MAX = 64 << 20
FILES_MAX = 100_000


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A file, or a line of it, that couldn't be read, and why."""

    name: str
    reason: str


class Format(Protocol):
    SUFFIXES: tuple[str, ...]

    def parse(self, name: str, content: bytes) -> Iterator[Document | Unreadable]:
        """`name` is the file's path in the folder that is read; documents' ids begin with it."""
        ...


def read(path: Path) -> Iterator[Document | Unreadable]:
    """The documents of a file, or of all files in a folder, in order of their names.

    Ids are paths in the folder, so that what stands together in it stands together in the collection. Hidden
    files are left out; what can't be read is reported, and the rest goes on. A document id that comes again
    is reported too, and the first one counts.
    """
    seen: set[str] = set()
    for item in _read(path):
        if isinstance(item, Document) and item.id in seen:
            yield Unreadable(name=item.id, reason="There is another document with this id.")
        else:
            seen.update({item.id} if isinstance(item, Document) else ())
            yield item


def _read(path: Path) -> Iterator[Document | Unreadable]:
    if path.is_file():
        yield from _file(path, path.name)
    elif path.is_dir():
        files = _files(path)
        for file in files[:FILES_MAX]:
            yield from _file(file, file.relative_to(path).as_posix())
        if len(files) > FILES_MAX:
            yield Unreadable(
                name=str(path), reason=f"Has more than {FILES_MAX} files; the rest was left out."
            )
    else:
        yield Unreadable(name=str(path), reason="There is no such file or folder.")


def _files(folder: Path) -> list[Path]:
    def hidden(file: Path) -> bool:
        return any(part.startswith(".") for part in file.relative_to(folder).parts)

    return sorted(file for file in folder.rglob("*") if file.is_file() and not hidden(file))


def _file(file: Path, name: str) -> Iterator[Document | Unreadable]:
    format = formats().get(file.suffix.lower())
    if format is None:
        known = ", ".join(sorted(formats()))
        yield Unreadable(name=name, reason=f"Its format {file.suffix or '(none)'} is not one of {known}.")
        return
    try:
        content = _content(file)
    except OSError as problem:
        yield Unreadable(name=name, reason=problem.strerror or str(problem))
        return
    if content is None:
        yield Unreadable(name=name, reason=f"Larger than {FILE_BYTES_MAX >> 20} MiB.")
        return
    yield from format.parse(name, content)


def _content(file: Path) -> bytes | None:
    """None if it is too large."""
    if file.stat().st_size > FILE_BYTES_MAX:
        return None
    return file.read_bytes()


@cache
def formats() -> dict[str, Format]:
    """The module for each suffix."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    modules: list[Any] = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {suffix: cast(Format, module) for module in modules for suffix in module.SUFFIXES}
