"""`flotilla.v1.Knowledge`."""

from __future__ import annotations

from typing import Any

from flotilla.rpc import v1_pb2 as pb
from serve.rpc.calls import Unary, fields
from serve.rpc.inside import Http
from serve.rpc.reading import segment


def _search(request: pb.SearchRequest) -> Http:
    path = f"/v1/knowledge/{segment('collection', request.collection)}/search"
    body = {"query": request.query} | fields(request, "limit", "mode")
    return Http(method="POST", path=path, body=body)


def _hits(document: dict[str, Any]) -> pb.SearchResponse:
    return pb.SearchResponse(hits=[pb.Hit(**hit) for hit in document["hits"]])


UNARY = {"/flotilla.v1.Knowledge/Search": Unary(pb.SearchRequest, _search, _hits)}
