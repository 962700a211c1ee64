"""Sealing: what is recorded lies in the database encrypted, and dropping a key erases all that it sealed.

secret ─ HKDF ─┬─ wraps the data keys, one a person, which lie in the database (AES key wrap)
               └─ hides the persons' names there (keyed BLAKE2b)
data key ─ AES-256-GCM ─ bodies, each bound to its place in the record
"""

from __future__ import annotations

import os
from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from flotilla.core.errors import Misconfigured, Undecodable
from flotilla.core.ids import ActorId

KEY_BYTES = 32
NONCE_BYTES = 12  # random: a key may seal 2^32 bodies (NIST SP 800-38D, 8.3)
PERSON_BYTES = 16
_NEXT = (
    "Start the fleet with the FLOTILLA_SECRET that it was recorded under, or restore the row from a backup."
)


class Key:
    """A data key. `id` is what rows name it by."""

    __slots__ = ("_aead", "id")

    def __init__(self, id: int, data: bytes) -> None:
        self.id = id
        self._aead = AESGCM(data)

    def seal(self, body: bytes, place: str) -> bytes:
        """Nonce, ciphertext and tag: 28 bytes more than `body`."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, body, place.encode())

    def open(self, sealed: bytes, place: str) -> bytes:
        """Raises `Undecodable` if it is not what this key sealed for this `place`."""
        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError):
            raise Undecodable(f"What is recorded at {place} was changed or damaged.", next=_NEXT) from None


class Safe:
    """Makes and opens data keys. Raises `Misconfigured` without a secret."""

    def __init__(self, secret: str) -> None:
        if not secret:
            raise Misconfigured(
                "The record can't be sealed without a secret.",
                field="FLOTILLA_SECRET",
                next="Set FLOTILLA_SECRET to 32 random characters or more, and keep it: it opens the record.",
            )
        self._wrapping = _derived(secret, b"flotilla/record/keys/1")
        self._naming = _derived(secret, b"flotilla/record/persons/1")

    def person(self, tenant: str, person: str) -> bytes:
        """What the person is called in the database."""
        name = f"{tenant}\0{person}".encode(errors="surrogatepass")
        return blake2b(name, key=self._naming, digest_size=PERSON_BYTES).digest()

    def fresh(self) -> bytes:
        """A new data key, wrapped."""
        return aes_key_wrap(self._wrapping, os.urandom(KEY_BYTES))

    def key(self, id: int, wrapped: bytes) -> Key:
        """Raises `Undecodable` if another secret wrapped it."""
        try:
            return Key(id, aes_key_unwrap(self._wrapping, wrapped))
        except (InvalidUnwrap, ValueError):
            raise Undecodable(f"Key {id} of the record can't be opened.", next=_NEXT) from None


def _derived(secret: str, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(secret.encode())


# -- places: a body that was moved to another one can't be opened there


def entry_place(actor: ActorId, seq: int, type: str, version: int) -> str:
    return f"{actor}/{seq}/{type}/{version}"


def snapshot_place(actor: ActorId, seq: int, version: int) -> str:
    return f"{actor}/snapshot/{seq}/{version}"
