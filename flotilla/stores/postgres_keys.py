"""The data keys of the record: found or made as they are needed, for many appends in one round trip.

The database has the last word on whether a key is still there: every read brings the key along with
what it sealed, and every append is refused if its key is gone. So a key that was dropped opens
nothing any more at any host from that moment on, though a host may still hold it in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import msgspec

from flotilla.core.errors import Misconfigured, Undecodable
from flotilla.core.ids import ActorId
from flotilla.stores.postgres_pool import KeyGone, erased, translated
from flotilla.stores.sealing import Key, Safe

KEYS_HELD_MAX = 20_000  # about 1 KB each
_CLAIM = "select * from claim_keys($1, $2, $3, $4, $5)"
_TENANT_OF_CHECK, _PERSON_OF_CHECK = "*", b""  # no names that a tenant or a person can have


class Writer(msgspec.Struct, frozen=True):
    """Who needs a key: `person` for what follows `seq` of `actor`. None is made for what was erased."""

    actor: ActorId
    person: str
    seq: int


class Keyring:
    def __init__(self, pool: asyncpg.Pool, safe: Safe) -> None:
        self._pool = pool
        self._safe = safe
        self._held: OrderedDict[bytes, Key] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Keyring: {len(self._held)} held>"

    async def using(
        self, writers: Sequence[Writer], write: Callable[[Sequence[Key]], Awaitable[None]]
    ) -> None:
        """Calls `write` with a key for each writer; once more, with others, if one had been dropped.

        Raises `Erased` if what a writer goes on from was erased."""
        try:
            await write(await self._keys(writers))
        except KeyGone:
            for writer in writers:
                self._held.pop(self._person(writer), None)
            await write(await self._keys(writers))

    def drop(self, tenant: str, person: str) -> bytes:
        """Forgets the person's key; returns what the person is called in the database."""
        name = self._safe.person(tenant, person)
        self._held.pop(name, None)
        return name

    def of_row(self, row: asyncpg.Record) -> Key:
        """The key that sealed a row. Raises `Erased` if it was dropped."""
        if row["wrapped"] is None:
            raise erased()
        held = self._held.get(row["person"])
        return held if held is not None and held.id == row["key"] else self._hold(row)

    def open(self, row: asyncpg.Record, place: str) -> bytes:
        """The row's body. Raises `Erased`, or `Undecodable` if it is not what was sealed for `place`."""
        if row["key"] is None:  # recorded before there was sealing; the schema lets no new one in
            return row["body"]
        return self.of_row(row).open(row["body"], place)

    async def check_secret(self) -> None:
        """Raises `Misconfigured` if another secret than ours sealed the record."""
        claim = [_TENANT_OF_CHECK], [_PERSON_OF_CHECK], [self._safe.fresh()], [""], [0]
        async with translated():
            row = await self._pool.fetchrow(_CLAIM, *claim)
        try:
            self._safe.key(row["key"], row["wrapped"])
        except Undecodable:
            raise Misconfigured(
                "The record was sealed under another secret.",
                field="FLOTILLA_SECRET",
                next="Start with the FLOTILLA_SECRET that was set when the database was new.",
            ) from None

    async def _keys(self, writers: Sequence[Writer]) -> list[Key]:
        persons = [self._person(writer) for writer in writers]
        keys = {person: self._touched(person) for person in persons if person in self._held}
        if new := {p: w for p, w in zip(persons, writers, strict=True) if p not in keys}:
            keys |= await self._claim(new)
        return [keys[person] for person in persons]

    async def _claim(self, new: dict[bytes, Writer]) -> dict[bytes, Key]:
        async with translated():
            rows = await self._pool.fetch(
                _CLAIM,
                [writer.actor.tenant for writer in new.values()],
                list(new),
                [self._safe.fresh() for _ in new],
                [writer.actor.key for writer in new.values()],
                [writer.seq for writer in new.values()],
            )
        keys = {row["person"]: self._hold(row) for row in rows}
        if len(keys) < len(new):
            raise KeyGone("A key was dropped as it was made.", next="Try again.", retry_after_s=0.0)
        return keys

    def _person(self, writer: Writer) -> bytes:
        return self._safe.person(writer.actor.tenant, writer.person or f"actor:{writer.actor.key}")

    def _touched(self, person: bytes) -> Key:
        self._held.move_to_end(person)
        return self._held[person]

    def _hold(self, row: asyncpg.Record) -> Key:
        key = self._held[row["person"]] = self._safe.key(row["key"], row["wrapped"])
        self._held.move_to_end(row["person"])
        if len(self._held) > KEYS_HELD_MAX:
            self._held.popitem(last=False)
        return key
