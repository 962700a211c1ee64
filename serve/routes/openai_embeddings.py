"""`POST /openai/v1/embeddings`."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response

from flotilla.core.charges import Charge
from flotilla.core.errors import NotFound, Unavailable
from flotilla.core.generation import Usage
from flotilla.core.ports import Embedder, Vectors
from serve.auth import Principal, needs
from serve.doors import Doors, doors_of
from serve.openai_bodies import EmbeddingBody
from serve.openai_errors import Invalid, OpenAIRoute
from serve.openai_generation import Gone, admit, estimated_tokens, while_there

router = APIRouter(route_class=OpenAIRoute)


@router.post("/embeddings")
async def embed(
    request: Request, who: Annotated[Principal, needs("completions:write")], body: EmbeddingBody
) -> Response:
    """A vector of length 1 for each text. `usage` is an estimate: a token for four bytes."""
    doors = doors_of(request)
    embedder = doors.embedder
    _check(body, embedder)
    texts = _texts(body.input)
    headers = await admit(doors, who.tenant)
    try:
        vectors = await while_there(request, embedder.embed(texts))
    except Gone:
        return Response(status_code=499)
    tokens = estimated_tokens(texts)
    _charge(doors, who.tenant, request.state.id, tokens)
    encoded = _base64(vectors) if body.encoding_format == "base64" else vectors.tolist()
    data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(encoded)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    found = {"object": "list", "data": data, "model": embedder.name, "usage": usage}
    return Response(msgspec.json.encode(found), 200, headers, media_type="application/json")


def _check(body: EmbeddingBody, embedder: Embedder) -> None:
    if not embedder.name:
        raise Unavailable("No embedder is there yet.", next="Try again.", retry_after_s=1.0)
    if body.model != embedder.name:
        raise NotFound(
            f"There is no embedding model {body.model!r}.", field="model", next=f"Use {embedder.name!r}."
        )
    if body.dimensions not in (None, embedder.dimensions):
        raise Invalid(
            f"Vectors of {embedder.name} have {embedder.dimensions} dimensions; they can't be cut.",
            field="dimensions",
            next="Leave it out.",
            code="unsupported_value",
        )


def _texts(given: str | list[Any]) -> list[str]:
    """Raises `Invalid` for tokens, and for what is empty."""
    texts: list[Any] = [given] if isinstance(given, str) else given
    for n, text in enumerate(texts):
        field = "input" if isinstance(given, str) else f"input.{n}"
        if not isinstance(text, str):
            raise Invalid(
                "Tokens are not read: this model's are not those of the client's tokeniser.",
                field="input",
                next="Send text; with LangChain, set check_embedding_ctx_length=False.",
                code="unsupported_value",
            )
        if not text:
            raise Invalid("There is no text.", field=field, next="Send text.")
    return texts


def _base64(vectors: Vectors) -> list[str]:
    """Little-endian float32, as clients ask for by default: a quarter of the bytes, and exact."""
    return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]


def _charge(doors: Doors, tenant: str, key: str, tokens: int) -> None:
    doors.charging.charge(
        Charge(
            tenant=tenant,
            key=key,
            at=doors.clock.now(),
            source="openai",
            model=doors.embedder.name,
            usage=Usage(prompt_tokens=tokens),
        )
    )
