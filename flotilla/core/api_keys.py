"""API keys as strings and as records.

A key is `flo_ID_SECRET`: ID names its record, SECRET is 256 random bits in base 62 and a checksum of
six characters, so that a scanner knows a leaked key without asking anybody, and a mistyped one costs no look-up.

Only a digest of the secret is kept: HMAC-SHA-256 under the fleet's own secret. A slow hash (Argon2, bcrypt)
guards passwords because people choose guessable ones. 256 random bits can't be guessed however fast the hash
is, so a slow one would cost every request and protect nothing. The fleet's secret in it means that whoever
can write into the database, but hasn't that secret, can't make a key that works.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
import zlib
from datetime import datetime
from typing import NamedTuple

import msgspec

from flotilla.core.errors import LimitReached
from flotilla.core.ids import new_id
from flotilla.core.limits import LIMITS

PREFIX = "flo_"
_ID_CHARACTERS = 26
_SECRET_CHARACTERS = 43  # 62^43 > 2^256
_CHECK_CHARACTERS = 6  # 62^6 > 2^32
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_LENGTH = len(PREFIX) + _ID_CHARACTERS + 1 + _SECRET_CHARACTERS + _CHECK_CHARACTERS


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bounds of one key or one tenant, over all gateways; 0 for none."""

    messages_per_s: float = 0.0
    messages_burst: int = 0
    sessions_per_min: int = 0
    sockets: int = 0
    streams: int = 0


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key's record. `digest` is of its secret; `former` is that of the secret before, good until
    `former_until`. `shown` is the beginning of the key, by which a person knows it. `used` is coarse."""

    id: str
    tenant: str
    name: str
    scopes: tuple[str, ...]
    limits: KeyLimits = KeyLimits()
    shown: str
    digest: bytes
    created: datetime
    created_by: str = ""
    expires: datetime | None = None
    revoked: datetime | None = None
    used: datetime | None = None
    former: bytes | None = None
    former_until: datetime | None = None

    def live(self, now: datetime) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)

    def until(self, digest: bytes, now: datetime) -> datetime | None:
        """When a secret with this digest stops working. None if never; raises `KeyError` for a wrong one,
        and for one whose time is over."""
        if not self.live(now):
            raise KeyError(self.id)
        if hmac.compare_digest(digest, self.digest):
            return self.expires
        if self.former is None or self.former_until is None or now >= self.former_until:
            raise KeyError(self.id)
        if not hmac.compare_digest(digest, self.former):
            raise KeyError(self.id)
        return min(filter(None, (self.former_until, self.expires)))


class NewSecret(NamedTuple):
    """`key` is shown once and kept nowhere."""

    key: str
    shown: str
    digest: bytes


class Pepper:
    """Makes digests of secrets, under the fleet's own secret."""

    def __init__(self, secret: str) -> None:
        self._pepper = hmac.digest(secret.encode(), b"flotilla api keys", "sha256")

    def digest(self, key: str) -> bytes:
        return hmac.digest(self._pepper, key.encode(), "sha256")

    def fresh(self, id: str) -> NewSecret:
        """A new secret for the key of that id."""
        secret = _base62(secrets.randbits(256), _SECRET_CHARACTERS)
        body = f"{PREFIX}{id.removeprefix('key_')}_{secret}"
        key = body + _check(body)
        return NewSecret(key, key[: len(PREFIX) + _ID_CHARACTERS + 5], self.digest(key))


def new_key_id() -> str:
    """`key_` and 26 characters that sort by time."""
    return new_id("key")


def id_of(key: str) -> str | None:
    """The id of the record that `key` names; None unless it has the form and the checksum of a key."""
    if len(key) != _LENGTH or not key.startswith(PREFIX) or not key.isascii():
        return None
    body, check = key[:-_CHECK_CHARACTERS], key[-_CHECK_CHARACTERS:]
    if _check(body) != check:
        return None
    return "key_" + key[len(PREFIX) : len(PREFIX) + _ID_CHARACTERS]


def plain_id(key: str) -> str:
    """What logs and limits call a key that has no record: of the environment, with no way back to it."""
    return "env_" + hashlib.sha256(b"id " + key.encode()).hexdigest()[:16]


def too_many_keys() -> LimitReached:
    return LimitReached(
        f"The tenant has {LIMITS.keys_per_tenant_max} live keys.", next="Revoke those that nobody needs."
    )


def _check(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK_CHARACTERS)


def _base62(number: int, length: int) -> str:
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
