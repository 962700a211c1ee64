"""What the agents may look up: documents in, passages out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response

from flotilla.core.errors import NotFound, Refused
from flotilla.core.knowledge import Document
from flotilla.core.limits import LIMITS
from serve.auth import Principal, needs
from serve.bodies import Documents, SearchQuery, check_text
from serve.doors import doors_of
from serve.routes.sessions import json

router = APIRouter(prefix="/v1/knowledge/{collection}", tags=["knowledge"])

Reader = Annotated[Principal, needs("knowledge:read")]
Writer = Annotated[Principal, needs("knowledge:write")]


@router.post("/documents")
async def put_documents(request: Request, who: Writer, collection: str, body: Documents) -> Response:
    """Adds or replaces by document id; what is unchanged costs nothing. The collection is made if need be."""
    for n, document in enumerate(body.documents):
        check_text(document.text, field=f"documents.{n}.text", bytes_max=LIMITS.documents_body_bytes_max)
    documents = tuple(Document(id=d.id, title=d.title or d.id, text=d.text) for d in body.documents)
    return json(await doors_of(request).knowledge.upsert(who.tenant, collection, documents))


@router.get("/documents")
async def list_documents(request: Request, who: Reader, collection: str) -> Response:
    """Content hash by document id, for importers that send only what changed."""
    return json({"documents": await doors_of(request).knowledge.documents(who.tenant, collection)})


@router.delete("/documents/{document:path}", status_code=204)
async def remove_document(request: Request, who: Writer, collection: str, document: str) -> Response:
    """When this answers, no search finds the document's text any more."""
    if not await doors_of(request).knowledge.remove(who.tenant, collection, document):
        raise NotFound(f"There is no document {document!r} in {collection!r}.", field="document")
    return Response(status_code=204)


@router.post("/search")
async def search(request: Request, who: Reader, collection: str, body: SearchQuery) -> Response:
    """Hybrid search (BM25 and vectors, fused by rank), best first. `similarity` is the cosine."""
    if not body.query.strip():
        raise Refused("`query` is empty.", field="query", next="Say what to look for.")
    check_text(body.query, field="query", bytes_max=LIMITS.query_bytes_max)
    hits = await doors_of(request).knowledge.search(
        who.tenant, collection, body.query, limit=body.limit, mode=body.mode
    )
    return json({"hits": hits})
