"""One document a line: `{"id", "title", "text"}`; `content` is taken for `text`."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from flotilla.connectors.documents import Unreadable
from flotilla.core.knowledge import Document

SUFFIXES = (".jsonl", ".ndjson")


class Line(msgspec.Struct):
    id: str
    title: str = ""
    text: str = ""
    content: str = ""


def parse(name: str, content: bytes) -> Iterator[Document | Unreadable]:
    """Ids are as given. A line that can't be read is reported as `NAME:LINE`."""
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            yield _document(f"{name}:{number}", line)


def _document(where: str, line: bytes) -> Document | Unreadable:
    try:
        read = msgspec.json.decode(line, type=Line)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        return Unreadable(name=where, reason=str(problem))
    text = read.text or read.content
    if not read.id.strip() or not text.strip():
        return Unreadable(name=where, reason="Has no id." if text.strip() else "Has no text.")
    return Document(id=read.id, title=read.title or read.id, text=text)
