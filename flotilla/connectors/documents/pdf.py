"""The text of a PDF, page after page, by pypdf."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import PurePosixPath

import pypdf

from flotilla.connectors.documents import Unreadable
from flotilla.core.knowledge import Document

SUFFIXES = (".pdf",)
PAGES_MAX = 2000


def parse(name: str, content: bytes) -> Iterator[Document | Unreadable]:
    """The first `PAGES_MAX` pages. Pages that can't be read are reported as `NAME#page=N`."""
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            yield Unreadable(name=name, reason="Is locked with a password.")
            return
        count = len(reader.pages)
        title = (reader.metadata.title if reader.metadata else None) or PurePosixPath(name).stem
    except Exception as problem:  # a broken file can fail anywhere in the parser
        yield Unreadable(name=name, reason=f"Can't be read as PDF: {problem}")
        return
    texts = [_page(reader, name, number) for number in range(min(count, PAGES_MAX))]
    yield from (text for text in texts if isinstance(text, Unreadable))
    if count > PAGES_MAX:
        yield Unreadable(name=f"{name}#page={PAGES_MAX + 1}", reason=f"Past the limit of {PAGES_MAX} pages.")
    whole = "\n\n".join(text for text in texts if isinstance(text, str) and text.strip())
    if whole:
        yield Document(id=name, title=title, text=whole)
    else:
        yield Unreadable(name=name, reason="Has no text; perhaps its pages are pictures.")


def _page(reader: pypdf.PdfReader, name: str, number: int) -> str | Unreadable:
    try:
        return reader.pages[number].extract_text()
    except Exception as problem:
        return Unreadable(name=f"{name}#page={number + 1}", reason=f"Can't be read: {problem}")
