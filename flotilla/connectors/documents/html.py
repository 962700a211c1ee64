"""The main text of a web page, without its navigation, by trafilatura."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import trafilatura

from flotilla.connectors.documents import Unreadable
from flotilla.core.knowledge import Document

SUFFIXES = (".html", ".htm", ".xhtml")


def parse(name: str, content: bytes) -> Iterator[Document | Unreadable]:
    """The text is Markdown: headings and lists stay what they are."""
    try:
        text = trafilatura.extract(content, output_format="markdown", include_tables=True, favor_recall=True)
        metadata: Any = trafilatura.extract_metadata  # takes bytes too, though its type says otherwise
        page = metadata(content)
    except Exception as problem:  # parsers raise what they like
        yield Unreadable(name=name, reason=f"Can't be parsed as HTML: {problem}")
        return
    if not text or not text.strip():
        yield Unreadable(name=name, reason="Has no main text.")
        return
    yield Document(id=name, title=(page and page.title) or PurePosixPath(name).stem, text=text)
