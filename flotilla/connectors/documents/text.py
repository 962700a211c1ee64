"""Plain text; the title is the first line if it is short, else the file's name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from flotilla.connectors.documents import Unreadable
from flotilla.core.knowledge import Document

SUFFIXES = (".txt",)
TITLE_CHARS_MAX = 120


def parse(name: str, content: bytes) -> Iterator[Document | Unreadable]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        yield Unreadable(name=name, reason=f"Is not UTF-8 (byte {problem.start}).")
        return
    if not text.strip():
        yield Unreadable(name=name, reason="Has no text.")
        return
    first = text.strip().splitlines()[0].strip()
    title = first if len(first) <= TITLE_CHARS_MAX else PurePosixPath(name).stem
    yield Document(id=name, title=title, text=text)
