"""What may be asked of the knowledge store."""

from __future__ import annotations

import re

from flotilla.core.errors import Refused, TooLarge
from flotilla.core.knowledge import Document

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
DOCUMENT_ID_CHARS_MAX = 512
DOCUMENT_CHARS_MAX = 1_000_000
QUERY_CHARS_MAX = 16_384
HITS_MAX = 200


def check_name(field: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise Refused(
            f"{name[:80]!r} can't be the name of a {field}.",
            field=field,
            next="Use 1 to 63 lower-case letters, digits, hyphens and underscores.",
        )


def check_document(document: Document) -> None:
    if not 0 < len(document.id) <= DOCUMENT_ID_CHARS_MAX:
        raise Refused(f"A document id has 1 to {DOCUMENT_ID_CHARS_MAX} characters.", field="id")
    if not document.text.strip():
        raise Refused(f"The document {document.id!r} has no text.", field="text", next="Send its text.")
    if len(document.text) > DOCUMENT_CHARS_MAX:
        raise TooLarge(
            f"The document {document.id!r} has {len(document.text)} characters of at most "
            f"{DOCUMENT_CHARS_MAX}.",
            field="text",
            next="Send it in parts.",
        )


def check_query(query: str, limit: int) -> None:
    if not query.strip():
        raise Refused("The query is empty.", field="query", next="Say what to look for.")
    if len(query) > QUERY_CHARS_MAX:
        detail = f"The query has {len(query)} of at most {QUERY_CHARS_MAX} characters."
        raise TooLarge(detail, field="query", next="Shorten it.")
    if not 1 <= limit <= HITS_MAX:
        raise Refused(f"The limit is {limit}.", field="limit", next=f"Choose 1 to {HITS_MAX}.")
