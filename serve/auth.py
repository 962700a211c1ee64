"""Who asks: an API key of a tenant, or a visitor's token for one session; and what that lets them do.

Every route says which scope it needs, so that the OpenAPI document tells it too:
`who: Annotated[Principal, needs("usage:read")]`. Other doors do the same in two steps:
`who = await identify(connection)`, then `check_scope(who, "usage:read")`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.requests import HTTPConnection

from flotilla.core.errors import Unauthenticated
from flotilla.core.ids import ActorId
from flotilla.core.scopes import OF_A_VISITOR, Scope
from serve import tokens
from serve.doors import Doors, doors_of
from serve.keys import DEV_KEY, DEV_TENANT
from serve.principals import Principal, check_key, check_scope
from serve.tokens import issue

__all__ = [
    "DEV_KEY",
    "DEV_TENANT",
    "SUBPROTOCOL",
    "Principal",
    "check_key",
    "check_scope",
    "identify",
    "issue",
    "needs",
    "who_is",
]

SUBPROTOCOL = "bearer."
_bearer = HTTPBearer(
    auto_error=False, scheme_name="bearer", description="An API key, or a visitor's token for one session."
)


async def identify(connection: HTTPConnection) -> Principal:
    """Raises `Unauthenticated` unless a valid key or token came with the request, `Unavailable` while nobody
    can say whether it is."""
    return await who_is(doors_of(connection), _credential(connection))


async def who_is(doors: Doors, credential: str | None) -> Principal:
    """The same for a credential that came in another way."""
    if not credential:
        raise Unauthenticated("No key or token was sent.", next="Send `Authorization: Bearer KEY`.")
    try:
        return await doors.keys.of(credential)
    except Unauthenticated:
        if credential.count(".") != 2:
            raise
    return await _visitor(doors, credential)


async def _visitor(doors: Doors, token: str) -> Principal:
    """Raises `Unauthenticated` for a token of a closed session too, and if the key that vouches for it is not
    good any more."""
    visit = tokens.read(doors.settings, token)
    if doors.revocations.closed(ActorId(visit.tenant, "session", visit.session)):
        raise tokens.void()
    vouching = await doors.keys.vouching(visit.key) if visit.key else Principal(tenant=visit.tenant)
    if vouching is None or vouching.tenant != visit.tenant:
        raise tokens.void()
    return Principal(
        tenant=visit.tenant,
        scopes=OF_A_VISITOR,
        session=visit.session,
        key=visit.key,
        limits=vouching.limits,
        until=datetime.fromtimestamp(visit.until, UTC),
    )


def _credential(connection: HTTPConnection) -> str | None:
    scheme, _, value = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return _from_subprotocol(connection)


def _from_subprotocol(connection: HTTPConnection) -> str | None:
    offered: list[str] = connection.scope.get("subprotocols") or []
    return next((p.removeprefix(SUBPROTOCOL) for p in offered if p.startswith(SUBPROTOCOL)), None)


async def _anyone(
    connection: HTTPConnection, scopes: SecurityScopes, _: Annotated[Any, Depends(_bearer)]
) -> Principal:
    who = await identify(connection)
    for scope in scopes.scopes:
        check_scope(who, scope)  # type: ignore[arg-type]  # `needs` takes nothing else
    return who


async def _tenant_only(who: Annotated[Principal, Security(_anyone)]) -> Principal:
    check_key(who)
    return who


def needs(scope: Scope, *, visitors: bool = False) -> Any:
    """For a route: a key with this scope; with `visitors` also a token, which holds those of a visitor."""
    return Security(_anyone if visitors else _tenant_only, scopes=[scope])
