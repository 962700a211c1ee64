"""The embedder of the collections: which one they have, and the way to another one. See docs/models.md."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response

from flotilla.core.knowledge import Reembedding
from flotilla.core.versions import Version, check_version
from serve.auth import Principal, needs
from serve.bodies_models import checked, decoded
from serve.doors import Doors, doors_of
from serve.routes.sessions import json

router = APIRouter(prefix="/v1/knowledge/embedder", tags=["knowledge"])

Reader = Annotated[Principal, needs("knowledge:read")]
Writer = Annotated[Principal, needs("operator")]


@router.post("", status_code=202)
async def reembed(request: Request, who: Writer) -> Response:
    """Has all collections embedded anew, by a version: its fields. Searches go on with the old embedder until
    a collection has all its vectors. Ordering the same one again changes nothing."""
    version = checked(decoded(await request.body()), Version)
    check_version(version)
    doors = doors_of(request)
    await doors.knowledge.reembed(version)
    return json(await _seen(doors, who), 202)


@router.get("")
async def show_embedder(request: Request, who: Reader) -> Response:
    """How far each collection is: `done` of `total` documents have the vectors of `embedder`; until all have,
    it is searched by those of `live`. An operator sees those of all tenants."""
    return json(await _seen(doors_of(request), who))


async def _seen(doors: Doors, who: Principal) -> dict[str, Any]:
    found = await doors.knowledge.reembedding()
    mine = [one for one in found if who.operator or one.tenant == who.tenant]
    return {"embedder": doors.embedder.name, "collections": [_collection(one) for one in mine]}


def _collection(one: Reembedding) -> dict[str, Any]:
    return msgspec.to_builtins(one) | {"switched": one.switched, "problem": one.problem or None}
