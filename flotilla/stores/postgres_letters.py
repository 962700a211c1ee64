"""Dead letters in PostgreSQL. A letter is sealed as its actor's last entry is, and goes with that person."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import msgspec

from flotilla.core.ids import ActorId, actor_of
from flotilla.core.journal import Letter
from flotilla.stores.postgres_keys import Keyring, Writer
from flotilla.stores.postgres_pool import translated
from flotilla.stores.sealing import Key

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, str]).decode  # the message, the problem


class PostgresLetters:
    """Implements `Letters`. A journal has one, on its connections: `PostgresJournal.letters`."""

    def __init__(self, pool: asyncpg.Pool, keys: Keyring) -> None:
        self._pool = pool
        self._keys = keys

    async def put(self, letter: Letter) -> None:
        """Raises `Erased` if what is recorded of the actor was."""
        async with translated():
            last = await self._pool.fetchrow(
                "select * from actor_key($1, $2)", letter.actor.tenant, letter.actor.key
            )

        async def write(keys: Sequence[Key]) -> None:
            await self._write(letter, keys[0])

        if last is not None and last["key"] is not None:
            return await write([self._keys.of_row(last)])
        return await self._keys.using([Writer(letter.actor, "", 0)], write)

    async def _write(self, letter: Letter, key: Key) -> None:
        async with translated():
            await self._pool.execute(
                "select put_letter($1, $2, $3, $4, $5, $6, $7)",
                letter.actor.tenant,
                letter.id,
                letter.actor.key,
                letter.at,
                letter.tries,
                key.id,
                key.seal(_encode((letter.message, letter.problem)), _place(letter.actor, letter.id)),
            )

    async def list(self, tenant: str, *, actor: ActorId | None = None, limit: int = 100) -> list[Letter]:
        async with translated():
            rows = await self._pool.fetch(
                "select * from list_letters($1, $2, $3)", tenant, actor and actor.key, limit
            )
        return [self._letter(tenant, row) for row in rows]

    async def read(self, tenant: str, id: str) -> Letter | None:
        async with translated():
            row = await self._pool.fetchrow(
                "select * from list_letters($1, null, null) where id = $2", tenant, id
            )
        return row and self._letter(tenant, row)

    async def remove(self, tenant: str, id: str) -> Letter | None:
        async with translated():
            row = await self._pool.fetchrow("select * from remove_letter($1, $2)", tenant, id)
        return row and self._letter(tenant, row)

    def _letter(self, tenant: str, row: asyncpg.Record) -> Letter:
        actor = actor_of(tenant, row["actor"])
        message, problem = _decode(self._keys.open(row, _place(actor, row["id"])))
        return Letter(
            id=row["id"], actor=actor, at=row["at"], message=message, problem=problem, tries=row["tries"]
        )


def _place(actor: ActorId, id: str) -> str:
    return f"{actor}/letter/{id}"
