"""The record: a journal in PostgreSQL.

Appends of many actors that arrive while a commit is under way go into the next one together
(group commit), so that one fsync serves them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from flotilla.core.errors import FlotillaError, Overloaded, Unavailable
from flotilla.core.ids import ActorId, actor_of
from flotilla.core.journal import Append, Due, Entry, Snapshot, Stored
from flotilla.core.reminders import Reminder, Repeat
from flotilla.stores.postgres_api_keys import PostgresApiKeys
from flotilla.stores.postgres_batch import columns
from flotilla.stores.postgres_keys import Keyring, Writer
from flotilla.stores.postgres_ledger import PostgresLedger
from flotilla.stores.postgres_letters import PostgresLetters
from flotilla.stores.postgres_pool import APP_ROLE, migrate, open_pool, translated
from flotilla.stores.sealing import Key, Safe, entry_place, snapshot_place

__all__ = ["APP_ROLE", "PostgresJournal", "migrate", "open_journal"]

BATCH_APPENDS_MAX = 512
WAITING_APPENDS_MAX = 20_000
UNFINISHED_READ_MAX = 10_000

_APPEND = f"select append_facts({', '.join(f'${n}' for n in range(1, 23))})"


class _Waiting(msgspec.Struct, frozen=True, eq=False):
    append: Append
    done: asyncio.Future[None]


class PostgresJournal:
    """Implements `Journal`. Make one with `open_journal`. `letters`, `ledger` and `api_keys` share its
    connections."""

    def __init__(self, pool: asyncpg.Pool, safe: Safe) -> None:
        self._pool = pool
        self._keys = Keyring(pool, safe)
        self.letters = PostgresLetters(pool, self._keys)
        self.ledger = PostgresLedger(pool)
        self.api_keys = PostgresApiKeys(pool)
        self._waiting: list[_Waiting] = []
        self._flusher: asyncio.Task[None] | None = None

    # -- writing

    async def append(self, append: Append) -> None:
        """Raises `Erased` if the actor's last entry was, besides what the port says."""
        if len(self._waiting) >= WAITING_APPENDS_MAX:
            raise Overloaded(f"{WAITING_APPENDS_MAX} appends wait for the journal.", retry_after_s=1.0)
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(append, done))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        await done

    async def _flush(self) -> None:
        while self._waiting:
            size = _batch_size(self._waiting)
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            await self._try(batch)

    async def _try(self, batch: Sequence[_Waiting]) -> None:
        try:
            await self._commit([waiting.append for waiting in batch])
        except Unavailable as error:
            _settle(batch, error)
        except Exception as error:  # even a bug must leave nobody waiting
            await self._halve(batch, error)
        else:
            _settle(batch, None)

    async def _halve(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """One of the batch can't be written, so nothing was: find out which."""
        if len(batch) > 1:
            await self._try(batch[: len(batch) // 2])
            await self._try(batch[len(batch) // 2 :])
        elif isinstance(error, FlotillaError):
            _settle(batch, error)
        else:
            broken = FlotillaError(f"An append broke the journal ({type(error).__name__}).")
            broken.__cause__ = error
            _settle(batch, broken)

    async def _commit(self, batch: Sequence[Append]) -> None:
        # In one order everywhere: two hosts that lock the same keys in different orders would deadlock.
        batch = sorted(batch, key=lambda append: append.actor)

        async def write(keys: Sequence[Key]) -> None:
            async with translated():
                await self._pool.execute(_APPEND, *columns(batch, keys))

        await self._keys.using([Writer(a.actor, a.person, a.expected) for a in batch], write)

    async def keep(self, actor: ActorId, snapshot: Snapshot, *, person: str = "") -> None:
        """Raises `Conflict` if the snapshot is ahead of the record, `Erased` if a part of it was."""
        place = snapshot_place(actor, snapshot.seq, snapshot.version)

        async def write(keys: Sequence[Key]) -> None:
            async with translated():
                await self._pool.execute(
                    "select keep_snapshot($1, $2, $3, $4, $5, $6)",
                    actor.tenant,
                    actor.key,
                    snapshot.seq,
                    snapshot.version,
                    keys[0].id,
                    keys[0].seal(snapshot.body, place),
                )

        await self._keys.using([Writer(actor, person, snapshot.seq)], write)

    async def erase(self, tenant: str, person: str) -> bool:
        """Besides, the person's dead letters and reminders go. `actor:KIND/NAME` is the name of an
        actor's own key."""
        name = self._keys.drop(tenant, person)
        async with translated():
            return await self._pool.fetchval("select erase_person($1, $2)", tenant, name)

    # -- reading

    async def load(self, actor: ActorId) -> tuple[Snapshot | None, list[Stored]]:
        async with translated():
            rows = await self._pool.fetch("select * from load_actor($1, $2)", actor.tenant, actor.key)
        snapshot = None
        if rows and rows[0]["type"] is None:
            snapshot = self._snapshot(actor, rows.pop(0))
        return snapshot, [self._stored(actor, row) for row in rows]

    async def read(self, actor: ActorId, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        async with translated():
            rows = await self._pool.fetch(
                "select * from read_facts($1, $2, $3, $4)", actor.tenant, actor.key, after, limit
            )
        return [self._stored(actor, row) for row in rows]

    def _stored(self, actor: ActorId, row: asyncpg.Record) -> Stored:
        seq, type_, version = row["seq"], row["type"], row["version"]
        body = self._keys.open(row, entry_place(actor, seq, type_, version))
        return Stored(seq, row["at"], Entry(type_, version, body))

    def _snapshot(self, actor: ActorId, row: asyncpg.Record) -> Snapshot:
        seq, version = row["seq"], row["version"]
        return Snapshot(seq, version, self._keys.open(row, snapshot_place(actor, seq, version)))

    async def unfinished(self) -> list[ActorId]:
        async with translated():
            rows = await self._pool.fetch("select * from unfinished_actors($1)", UNFINISHED_READ_MAX)
        return [actor_of(row["tenant"], row["actor"]) for row in rows]

    async def actors(
        self, tenant: str, kind: str, *, before: str | None = None, limit: int = 50
    ) -> list[tuple[ActorId, list[Stored]]]:
        async with translated():
            rows = await self._pool.fetch(
                "select * from list_actors($1, $2, $3, $4)", tenant, kind, before, limit
            )
        found: dict[ActorId, list[Stored]] = {}
        for row in rows:
            actor = actor_of(tenant, row["actor"])
            found.setdefault(actor, []).append(self._stored(actor, row))
        return list(found.items())

    async def due(self, before: datetime, buckets: Sequence[int], *, limit: int) -> list[Due]:
        async with translated():
            rows = await self._pool.fetch(
                "select * from due_reminders($1, $2, $3)", before, sorted(set(buckets)), limit
            )
        return [
            Due(
                actor_of(row["tenant"], row["actor"]),
                row["name"],
                row["due"],
                _repeat(row["repeat"]),
                row["all_missed"],
            )
            for row in rows
        ]

    async def reminders(self, actor: ActorId) -> list[Reminder]:
        async with translated():
            rows = await self._pool.fetch("select * from read_reminders($1, $2)", actor.tenant, actor.key)
        return [
            Reminder(
                name=row["name"],
                due=row["due"],
                repeat=_repeat(row["repeat"]),
                all_missed=row["all_missed"],
            )
            for row in rows
        ]

    async def ping(self) -> None:
        async with translated():
            await self._pool.execute("select 1")

    async def close(self) -> None:
        if self._flusher is not None:
            await self._flusher
        await self._pool.close()


def _batch_size(waiting: Sequence[_Waiting]) -> int:
    """How many go into the next commit: an actor is in it once, so that its appends keep their order."""
    actors: set[ActorId] = set()
    for size, one in enumerate(waiting[:BATCH_APPENDS_MAX]):
        if one.append.actor in actors:
            return size
        actors.add(one.append.actor)
    return min(len(waiting), BATCH_APPENDS_MAX)


def _settle(batch: Sequence[_Waiting], error: FlotillaError | None) -> None:
    for waiting in batch:
        if waiting.done.done():  # its asker has gone
            continue
        if error is None:
            waiting.done.set_result(None)
        else:
            waiting.done.set_exception(error)


def _repeat(text: str | None) -> Repeat | None:
    return msgspec.json.decode(text, type=Repeat) if text else None


async def open_journal(url: str, *, secret: str, connections: int = 4) -> PostgresJournal:
    """`secret` opens what is recorded: without it the record is lost.

    Raises `Unavailable` if nothing answers, `Misconfigured` if the schema is missing, or if `secret` is
    empty or not the one that the record was begun with.
    """
    safe = Safe(secret)
    pool = await open_pool(url, connections=connections)
    try:
        await Keyring(pool, safe).check_secret()
    except FlotillaError:
        await pool.close()
        raise
    return PostgresJournal(pool, safe)
