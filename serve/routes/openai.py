"""The fleet's models as OpenAI's clients know models: `/openai/v1`, with a tenant's key."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from flotilla.core.errors import NotFound
from serve.openai_errors import PREFIX, OpenAIRoute
from serve.routes import openai_chat, openai_completions, openai_embeddings, openai_models

router = APIRouter(prefix=PREFIX, tags=["openai"], route_class=OpenAIRoute)
for part in (openai_chat, openai_completions, openai_embeddings, openai_models):
    router.include_router(part.router)


@router.api_route("/{path:path}", methods=["GET", "POST", "DELETE", "PUT", "PATCH"], include_in_schema=False)
async def nothing(request: Request, path: str) -> Response:
    """In the form that the clients read: they are asked for much that isn't here."""
    raise NotFound(
        f"There is no {request.method} {PREFIX}/{path}.",
        next="Use chat/completions, completions, embeddings or models.",
    )
