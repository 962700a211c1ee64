"""Names of things: sortable by time, safe in URLs, unguessable."""

from __future__ import annotations

import re
import secrets
import time

import msgspec

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
NAME = r"[A-Za-z0-9_.:\-]{1,128}"
_NAME = re.compile(NAME)


class Draw:
    """Where names come from. The simulator puts its own `number` here: the same seed, the same names."""

    @staticmethod
    def number() -> int:
        """48 bits of Unix milliseconds, then 80 random bits."""
        return time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)


def new_id(prefix: str) -> str:
    """`PREFIX_` and 26 characters: 48 bits of Unix milliseconds, then 80 random bits (a ULID)."""
    number = Draw.number()
    return prefix + "_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def is_name(text: str) -> bool:
    """Whether `text` can name a tenant, an actor, a collection or a client's message."""
    return _NAME.fullmatch(text) is not None


class ActorId(msgspec.Struct, frozen=True, order=True, array_like=True, cache_hash=True, gc=False):
    """Who an actor is, wherever it lives: its tenant, its kind and its name in that kind."""

    tenant: str
    kind: str
    name: str

    @property
    def key(self) -> str:
        """`KIND/NAME`, unique within the tenant."""
        return f"{self.kind}/{self.name}"

    def __str__(self) -> str:
        return f"{self.tenant}/{self.kind}/{self.name}"


def actor_of(tenant: str, key: str) -> ActorId:
    kind, _, name = key.partition("/")
    return ActorId(tenant, kind, name)
