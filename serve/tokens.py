"""Tokens for visitors: short-lived, for one session, with the name of the key that vouches for them.

They are signed (JWT, HS256) and kept nowhere. `kid` names the secret that signed: with a new one put before the
old one in FLOTILLA_TOKEN_SECRETS, what the old one has signed goes on until it ends.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from functools import lru_cache
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OctKey

from flotilla.core.errors import Unauthenticated
from serve.settings import Settings


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says. `key` is the id of the key that vouches for it; `until` is in Unix seconds."""

    tenant: str
    session: str
    key: str
    until: int


def issue(settings: Settings, tenant: str, session: str, key: str = "") -> tuple[str, int]:
    """A visitor's token for one session, and when it ends (Unix seconds)."""
    until = int(time.time() + settings.token_s)
    claims = {"ten": tenant, "sub": session, "key": key, "exp": until}
    signing, *_ = secrets_of(settings)
    header = {"alg": "HS256", "kid": _kid(signing)}
    return jwt.encode(header, claims, _keys(signing)), until


def read(settings: Settings, token: str) -> Visit:
    """Raises `Unauthenticated` unless it was signed here and its time is not over."""
    try:
        claims: dict[str, Any] = jwt.decode(token, _keys(*secrets_of(settings)), ["HS256"]).claims
        jwt.JWTClaimsRegistry(exp={"essential": True}).validate(claims)
        return Visit(tenant=claims["ten"], session=claims["sub"], key=claims["key"], until=claims["exp"])
    except (JoseError, ValueError, KeyError, TypeError):
        raise void() from None


def void() -> Unauthenticated:
    return Unauthenticated(
        "This token is not valid any more.",
        next="Renew tokens before they end with POST /v1/sessions/{id}/token, or begin a new visit.",
    )


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """The first one signs."""
    if settings.token_secrets:
        return settings.token_secrets
    return (hmac.new(settings.secret.encode(), b"flotilla visitor tokens", hashlib.sha256).hexdigest(),)


@lru_cache(maxsize=8)
def _keys(*secrets: str) -> KeySet:
    return KeySet([OctKey.import_key(secret, {"kid": _kid(secret)}) for secret in secrets])


def _kid(secret: str) -> str:
    return hashlib.sha256(b"kid " + secret.encode()).hexdigest()[:8]
