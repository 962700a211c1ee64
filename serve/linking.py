"""Links of the OpenAPI document: what an answer is good for next. From the session that one call opens to the calls
of that session, say; clients and fuzzers that know links go that way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class _Giving(NamedTuple):
    """An answer, and the parameters of other operations that can be had from it, as runtime expressions."""

    method: str
    path: str
    status: str
    values: Mapping[str, str]


_GIVING = (
    _Giving("post", "/v1/sessions", "201", {"session": "$response.body#/id"}),
    _Giving("post", "/v1/web/visits", "201", {"session": "$response.body#/session"}),
    _Giving(
        "post",
        "/v1/sessions/{session}/messages",
        "202",
        {"session": "$request.path.session", "after": "$response.body#/seq"},
    ),
    _Giving("post", "/v1/keys", "201", {"key": "$response.body#/id"}),
    _Giving(
        "post",
        "/v1/knowledge/{collection}/documents",
        "200",
        {"collection": "$request.path.collection", "document": "$request.body#/documents/0/id"},
    ),
)


def add_links(document: dict[str, Any]) -> None:
    """To each answer of `_GIVING` a link to every operation that takes all that it gives."""
    for giving in _GIVING:
        answer = document["paths"][giving.path][giving.method]["responses"][giving.status]
        answer["links"] = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": dict(giving.values),
            }
            for operation in _taking(document, giving.values)
        }


def _taking(document: dict[str, Any], values: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The operations that have these parameters, and nothing else in their path."""
    for operations in document["paths"].values():
        for operation in operations.values():
            taken = {parameter["name"]: parameter["in"] for parameter in operation.get("parameters", ())}
            if values.keys() <= taken.keys() and _of_path(taken) <= values.keys():
                yield operation


def _of_path(taken: Mapping[str, str]) -> set[str]:
    return {name for name, place in taken.items() if place == "path"}
