"""Every route says which scope it needs, and refuses a key without it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

from flotilla.core.api_keys import IssuedKey, new_key_id
from flotilla.core.scopes import OF_A_VISITOR, SCOPES
from serve import auth
from serve.app import create_app
from tests.serve.conftest import SETTINGS, Gateway

# Open to all: no word of a tenant is in them, or they are for loopback alone.
PUBLIC = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("POST", "/v1/web/visits"),
}


def operations() -> Iterator[tuple[str, str, list[dict[str, list[str]]]]]:
    """Of the OpenAPI document: method, path, and what it says of security."""
    for path, methods in create_app(SETTINGS).openapi()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation.get("security", [])


OPERATIONS = [one for one in operations() if one[:2] not in PUBLIC]


def plain(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "x", path)


async def with_scopes(gateway: Gateway, scopes: frozenset[str]) -> str:
    doors: Any = gateway.app.state.doors
    id = new_key_id()
    new = doors.keys.fresh(id)
    key = IssuedKey(
        id=id,
        tenant="demo",
        name="n",
        scopes=tuple(scopes),
        shown=new.shown,
        digest=new.digest,
        created=doors.clock.now(),
    )
    await (await doors.api_keys()).create(key)
    return new.key


def test_each_route_but_the_public_ones_says_its_one_scope() -> None:
    assert {one[:2] for one in operations()} >= PUBLIC and len(OPERATIONS) > 40
    for method, path, security in OPERATIONS:
        assert len(security) == 1, (method, path, security)
        (scopes,) = security[0].values()
        assert len(scopes) == 1 and scopes[0] in SCOPES, (method, path, scopes)
    said = {scopes[0] for _, _, security in OPERATIONS for scopes in security[0].values()}
    assert said == SCOPES


async def test_a_route_is_refused_without_its_scope(gateway: Gateway) -> None:
    for method, path, security in OPERATIONS:
        (scope,) = security[0]["bearer"]
        async with gateway.with_key(await with_scopes(gateway, SCOPES - {scope})) as without:
            answer = await without.request(method, plain(path), json={})
            assert answer.status_code == 403 and repr(scope) in answer.text, (method, path, answer.text)


async def test_a_route_lets_in_who_has_its_scope_and_no_other(gateway: Gateway) -> None:
    async def let_in(method: str, path: str, scope: str) -> None:
        async with gateway.with_key(await with_scopes(gateway, frozenset({scope}))) as only:
            only.timeout = 60.0
            answer = await only.request(method, plain(path), json={})
            assert answer.status_code not in (401, 403), (method, path, answer.text)

    # Who is let in at a stream would not come out again. Some others wait for hosts that aren't here.
    plain_ones = [one for one in OPERATIONS if not one[1].endswith(("/stream", "/events"))]
    await asyncio.gather(*(let_in(m, path, said[0]["bearer"][0]) for m, path, said in plain_ones))


async def test_a_route_is_refused_to_who_has_no_key(gateway: Gateway) -> None:
    async with gateway.with_key("nobody knows this one") as nobody:
        for method, path, _ in OPERATIONS:
            answer = await nobody.request(method, plain(path), json={})
            assert answer.status_code == 401, (method, path, answer.text)


async def test_a_visitor_is_refused_all_but_its_conversation(gateway: Gateway) -> None:
    async with gateway.with_key(auth.issue(SETTINGS, "demo", "x")[0]) as visitor:
        for method, path, security in OPERATIONS:
            (scope,) = security[0]["bearer"]
            answer = await visitor.request(method, plain(path), json={})
            if path.startswith("/v1/sessions/{session}") and not path.endswith("/notes"):
                assert answer.status_code != 403 and scope in OF_A_VISITOR, (method, path, answer.text)
            else:
                assert answer.status_code == 403, (method, path, answer.text)
