"""Who asks: an API key of a tenant, or a visitor's token for one session."""

from __future__ import annotations

import hashlib
import time
from typing import Annotated, Any

import msgspec
from fastapi import Depends
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from starlette.requests import HTTPConnection

from flotilla.core.errors import Forbidden, Refused, Unauthenticated
from flotilla.core.ids import ActorId, is_name
from flotilla.core.limits import LIMITS
from serve.doors import doors_of
from serve.settings import Settings

DEV_KEY = "dev"
DEV_TENANT = "demo"
SUBPROTOCOL = "bearer."


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """`session` is set for a visitor, who may touch that one session and nothing else; an operator may
    also touch the fleet."""

    tenant: str
    operator: bool = False
    session: str | None = None

    @property
    def visitor(self) -> bool:
        return self.session is not None

    def actor(self, session: str) -> ActorId:
        """The session's actor. Raises `Forbidden` if it is not this visitor's."""
        if not is_name(session):
            raise Refused("That is no session id.", field="session")
        if self.session not in (None, session):
            raise Forbidden("This token is for another session.", next="Use the token of this session.")
        return ActorId(self.tenant, "session", session)


def issue(settings: Settings, tenant: str, session: str) -> tuple[str, int]:
    """A visitor's token for one session, and when it ends (Unix seconds)."""
    until = int(time.time() + LIMITS.visitor_token_s)
    claims = {"ten": tenant, "sub": session, "exp": until}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(settings.secret)), until


def identify(connection: HTTPConnection) -> Principal:
    """Raises `Unauthenticated` unless a valid key or token came with the request."""
    settings, credential = doors_of(connection).settings, _credential(connection)
    if credential is None:
        raise Unauthenticated("No key or token was sent.", next="Send `Authorization: Bearer KEY`.")
    if credential == DEV_KEY and settings.on_loopback:
        return Principal(tenant=DEV_TENANT, operator=True)
    if key := settings.keys.get(hashlib.sha256(credential.encode()).hexdigest()):
        return Principal(tenant=key.tenant, operator=key.operator)
    if credential.count(".") == 2:
        return _visitor(settings, credential)
    raise Unauthenticated("This key is not known.", next="Check the key; `dev` works on loopback only.")


def _credential(connection: HTTPConnection) -> str | None:
    scheme, _, value = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return _from_subprotocol(connection)


def _from_subprotocol(connection: HTTPConnection) -> str | None:
    offered: list[str] = connection.scope.get("subprotocols") or []
    return next((p.removeprefix(SUBPROTOCOL) for p in offered if p.startswith(SUBPROTOCOL)), None)


def _visitor(settings: Settings, token: str) -> Principal:
    try:
        claims: dict[str, Any] = jwt.decode(token, OctKey.import_key(settings.secret), ["HS256"]).claims
        jwt.JWTClaimsRegistry(exp={"essential": True}).validate(claims)
    except (JoseError, ValueError):
        raise Unauthenticated("This token is not valid any more.", next="Begin a new visit.") from None
    return Principal(tenant=claims["ten"], session=claims["sub"])


def check_key(who: Principal) -> None:
    """Raises `Forbidden` for a visitor."""
    if who.visitor:
        raise Forbidden("A visitor's token can't do this.", next="Use an API key.")


def _tenant_only(connection: HTTPConnection) -> Principal:
    principal = identify(connection)
    check_key(principal)
    return principal


def _operator_only(connection: HTTPConnection) -> Principal:
    principal = _tenant_only(connection)
    if not principal.operator:
        raise Forbidden(
            "This touches the whole fleet, and the key is of one tenant.",
            next="Use a key of an operator: TENANT:KEY:operator in FLOTILLA_API_KEYS.",
        )
    return principal


Anyone = Annotated[Principal, Depends(identify)]
"""A tenant's key, or a visitor's token."""
Tenant = Annotated[Principal, Depends(_tenant_only)]
"""A tenant's key."""
Operator = Annotated[Principal, Depends(_operator_only)]
"""A tenant's key that is an operator's, too."""
