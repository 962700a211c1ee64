"""What clients send, checked. Unknown fields are refused, so that a typo is not lost in silence."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flotilla.core.agents import WhileTalking
from flotilla.core.errors import Refused, TooLarge
from flotilla.core.ids import NAME
from flotilla.core.limits import LIMITS
from flotilla.core.policy.admission import PERSON_CHARACTERS_MAX

Person = Annotated[str, Field(min_length=1, max_length=PERSON_CHARACTERS_MAX, pattern=r"\S")]
"""A person by the name that the desk knows."""
Id = Annotated[str, Field(max_length=128, json_schema_extra={"pattern": f"^{NAME}$"})]
"""The client's own name for a message."""
Stored = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Text that goes to PostgreSQL, which keeps no NUL."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


B = TypeVar("B", bound=_Body)


def checked(type: type[B], raw: dict[str, Any]) -> B:
    """A body that came in another way than FastAPI's. Raises `Refused` as the routes do."""
    try:
        return type.model_validate(raw)
    except ValidationError as error:
        raise misfit(dict(error.errors()[0])) from None


def misfit(first: dict[str, Any]) -> Refused:
    """The first of pydantic's errors, as ours."""
    path = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    field = ".".join(path) or "body"
    if first["type"] == "json_invalid":
        return Refused("The body is not valid JSON.", field="body", next="Send a JSON object.")
    return Refused(f"`{field}`: {first['msg']}.", field=field, next="See /docs for what fits.")


class OpenSession(_Body):
    agent: str | None = Field(None, max_length=256)
    channel: str = Field("api", max_length=64)
    customer: str | None = Field(None, max_length=256)
    metadata: dict[str, Any] = {}
    model: str | None = Field(
        None,
        max_length=256,
        description="The model or version that is to answer here (`smollm2`, `smollm2@2`); the agent's if null.",
    )


class PostMessage(_Body):
    id: Id
    text: str
    attachments: list[dict[str, Any]] = Field([], max_length=0, description="Not taken yet: must be empty.")
    while_talking: WhileTalking | None = Field(
        None, description="What becomes of the message if the agent still talks; the agent's own way if null."
    )
    person: Person | None = Field(
        None, alias="as", description="The person who has taken the session over and says this."
    )


class Handoff(_Body):
    """`person` goes with `accept` and `return`, `reason` with `request`."""

    action: Literal["request", "accept", "return"]
    person: Person | None = None
    reason: str = Field("", max_length=1024)


class NoteBody(_Body):
    id: Id
    text: str
    person: Person


class Visit(_Body):
    agent: str | None = Field(None, max_length=256)


class DocumentBody(_Body):
    id: str = Field(min_length=1, max_length=256)
    title: str = Field("", max_length=1024)
    text: str


class Documents(_Body):
    documents: list[DocumentBody] = Field(min_length=1, max_length=LIMITS.documents_per_call_max)


class SearchQuery(_Body):
    query: str
    limit: int = Field(10, ge=1, le=LIMITS.search_hits_max)
    mode: Literal["hybrid", "bm25", "vector"] = "hybrid"


class MoveBody(_Body):
    host: str = Field(min_length=1, max_length=128)


class JournalPage(BaseModel):
    """The query of a page of a journal."""

    model_config = ConfigDict(extra="forbid")

    after: int = Field(0, ge=0, lt=2**63)
    limit: int = Field(100, ge=1, le=LIMITS.page_max)
    bodies: bool = False


def check_text(text: str, *, field: str = "text", bytes_max: int = LIMITS.message_bytes_max) -> None:
    """Raises `Refused` for text that has no UTF-8 form, `TooLarge` past the limit."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise Refused(
            f"`{field}` has half a surrogate pair.", field=field, next="Send whole characters."
        ) from None
    if size > bytes_max:
        raise TooLarge(
            f"`{field}` has {size} bytes; at most {bytes_max} fit.", field=field, next="Send less."
        )


def check_metadata(metadata: dict[str, Any]) -> None:
    """Raises `Refused` for what the record can't keep as it came, `TooLarge` past the limit."""
    try:
        text = json.dumps(metadata, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        check_text(text, field="metadata", bytes_max=LIMITS.metadata_bytes_max)
        msgspec.msgpack.encode(metadata)
    except (ValueError, OverflowError):
        raise Refused(
            "`metadata` has a number without JSON form, or of more than 64 bits.",
            field="metadata",
            next="Send it as text.",
        ) from None


def parse_place(text: str | None, *, field: str) -> tuple[int, int]:
    """`SEQ` or `SEQ:OFFSET`, as in SSE ids; (0, 0) for nothing."""
    if not text:
        return 0, 0
    seq, _, offset = text.partition(":")
    if not _counts(seq) or (offset and not _counts(offset)):
        raise Refused(
            f"`{field}` is SEQ or SEQ:OFFSET.", field=field, next="Send the last id that you have seen."
        )
    return int(seq), int(offset or 0)


def _counts(digits: str) -> bool:
    return len(digits) < 19 and digits.isdecimal()  # fits into 64 bits
