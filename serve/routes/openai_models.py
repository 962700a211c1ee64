"""`GET /openai/v1/models`: the names of models, their versions, and the embedder."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response

from flotilla.core.errors import NotFound
from serve.auth import Principal, needs
from serve.doors import Doors, doors_of
from serve.openai_errors import OpenAIRoute

router = APIRouter(route_class=OpenAIRoute)


@router.get("/models")
async def list_models(request: Request, who: Annotated[Principal, needs("models:read")]) -> Response:
    """What the tenant may ask for."""
    data = [_model(name) for name in _names(doors_of(request), who.tenant)]
    return _json({"object": "list", "data": data})


@router.get("/models/{id:path}")
async def get_model(request: Request, who: Annotated[Principal, needs("models:read")], id: str) -> Response:
    if id not in _names(doors_of(request), who.tenant):
        raise NotFound(f"There is no model {id!r}.", field="model", next="GET /openai/v1/models lists them.")
    return _json(_model(id))


def _names(doors: Doors, tenant: str) -> list[str]:
    versions = doors.model.versions(tenant)
    names = {version.model for version in versions} | {version.id for version in versions}
    return [*sorted(names), *filter(None, [doors.embedder.name])]


def _model(id: str) -> dict[str, Any]:
    """When it was made is not known here."""
    return {"id": id, "object": "model", "created": 0, "owned_by": "flotilla"}


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
