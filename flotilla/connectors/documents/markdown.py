"""Markdown as it is written; the title is that of the front matter, or the first heading, or the file's name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from flotilla.connectors.documents import Unreadable
from flotilla.core.knowledge import Document

SUFFIXES = (".md", ".markdown")

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"(?m)^title:\s*[\"']?(.+?)[\"']?\s*$")
_HEADING = re.compile(r"(?m)^#{1,6}\s+(.+?)\s*#*\s*$")


def parse(name: str, content: bytes) -> Iterator[Document | Unreadable]:
    try:
        source = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        yield Unreadable(name=name, reason=f"Is not UTF-8 (byte {problem.start}).")
        return
    front = _FRONT_MATTER.match(source)
    text = source[front.end() :] if front else source
    if not text.strip():
        yield Unreadable(name=name, reason="Has no text.")
        return
    title = (_FRONT_TITLE.search(front[1]) if front else None) or _HEADING.search(text)
    yield Document(id=name, title=title[1] if title else PurePosixPath(name).stem, text=text)
