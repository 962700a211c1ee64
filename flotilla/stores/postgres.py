"""The record: a journal in PostgreSQL.

Appends of many actors that arrive while a commit is under way go into the next one together
(group commit), so that one fsync serves them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.resources import files

import asyncpg
import msgspec

from flotilla.core.errors import Conflict, FlotillaError, Misconfigured, Overloaded, Unavailable
from flotilla.core.facts import Fact, Recorded
from flotilla.core.ids import ActorId, actor_of

APP_ROLE = "flotilla_app"
BATCH_APPENDS_MAX = 512
WAITING_APPENDS_MAX = 20_000
UNFINISHED_READ_MAX = 10_000
COMMAND_TIMEOUT_S = 10.0
_MIGRATION_LOCK = 5_137_204

_DOWN = (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, TimeoutError)
# Shut down or starting, deadlocked or cancelled, failed over to a replica: all pass by themselves.
_PASSING = (
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Fact).decode


class _Append(msgspec.Struct, frozen=True):
    actor: ActorId
    expected: int
    facts: tuple[Fact, ...]
    at: datetime
    unfinished: bool
    done: asyncio.Future[None]


class PostgresJournal:
    """Implements `Journal`. Make one with `open_journal`."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._waiting: list[_Append] = []
        self._flusher: asyncio.Task[None] | None = None

    async def append(
        self, actor: ActorId, expected: int, facts: Sequence[Fact], *, at: datetime, unfinished: bool
    ) -> None:
        if len(self._waiting) >= WAITING_APPENDS_MAX:
            raise Overloaded(f"{WAITING_APPENDS_MAX} appends wait for the journal.", retry_after_s=1.0)
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(_Append(actor, expected, tuple(facts), at, unfinished, done))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        await done

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH_APPENDS_MAX], self._waiting[BATCH_APPENDS_MAX:]
            try:
                await self._commit(batch)
            except Conflict as conflict:
                await self._commit_alone(batch, conflict)
            except FlotillaError as error:
                _settle(batch, error)
            else:
                _settle(batch, None)

    async def _commit_alone(self, batch: Sequence[_Append], conflict: Conflict) -> None:
        """One of the batch lost its race, so nothing was written: find out which."""
        if len(batch) == 1:
            return _settle(batch, conflict)
        for append in batch:
            try:
                await self._commit([append])
            except FlotillaError as error:
                _settle([append], error)
            else:
                _settle([append], None)
        return None

    async def _commit(self, batch: Sequence[_Append]) -> None:
        # In one order everywhere: two hosts that lock the same keys in different orders would deadlock.
        batch = sorted(batch, key=lambda append: (append.actor, append.expected))
        rows = [(a, a.expected + i, fact) for a in batch for i, fact in enumerate(a.facts, 1)]
        # An actor appends once a batch, unless its host lost track: then the later word stands.
        state = {a.actor: a.unfinished for a in batch}
        begun = [actor for actor, unfinished in state.items() if unfinished]
        done = [actor for actor, unfinished in state.items() if not unfinished]
        async with _translated():
            await self._pool.execute(
                "select append_facts($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                [a.actor.tenant for a, _, _ in rows],
                [a.actor.key for a, _, _ in rows],
                [seq for _, seq, _ in rows],
                [fact.__struct_config__.tag for _, _, fact in rows],
                [a.at for a, _, _ in rows],
                [_encode(fact) for _, _, fact in rows],
                [actor.tenant for actor in begun],
                [actor.key for actor in begun],
                [actor.tenant for actor in done],
                [actor.key for actor in done],
            )

    async def read(self, actor: ActorId, *, after: int = 0, limit: int | None = None) -> list[Recorded]:
        async with _translated():
            rows = await self._pool.fetch(
                "select * from read_facts($1, $2, $3, $4)", actor.tenant, actor.key, after, limit
            )
        return [_recorded(row) for row in rows]

    async def unfinished(self) -> list[ActorId]:
        async with _translated():
            rows = await self._pool.fetch("select * from unfinished_actors($1)", UNFINISHED_READ_MAX)
        return [actor_of(row["tenant"], row["actor"]) for row in rows]

    async def actors(
        self, tenant: str, kind: str, *, before: str | None = None, limit: int = 50
    ) -> list[tuple[ActorId, list[Recorded]]]:
        async with _translated():
            rows = await self._pool.fetch(
                "select * from list_actors($1, $2, $3, $4)", tenant, kind, before, limit
            )
        found: dict[str, list[Recorded]] = {}
        for row in rows:
            found.setdefault(row["actor"], []).append(_recorded(row))
        return [(actor_of(tenant, key), facts) for key, facts in found.items()]

    async def ping(self) -> None:
        async with _translated():
            await self._pool.execute("select 1")

    async def close(self) -> None:
        if self._flusher is not None:
            await self._flusher
        await self._pool.close()


def _settle(batch: Sequence[_Append], error: FlotillaError | None) -> None:
    for append in batch:
        if append.done.done():  # its asker has gone
            continue
        if error is None:
            append.done.set_result(None)
        else:
            append.done.set_exception(error)


def _recorded(row: asyncpg.Record) -> Recorded:
    try:
        return Recorded(seq=row["seq"], at=row["at"], fact=_decode(row["body"]))
    except msgspec.DecodeError as error:
        raise FlotillaError(f"Fact {row['seq']} can't be read: {error}.") from error


@asynccontextmanager
async def _translated():
    try:
        yield
    except asyncpg.UniqueViolationError:
        raise Conflict("Another host has written to this actor's journal.") from None
    except asyncpg.InsufficientResourcesError as error:  # disk, memory, connections
        raise Unavailable(
            f"PostgreSQL is out of room: {error}.",
            next="Free disk space or connections; nothing accepted is lost.",
            retry_after_s=5.0,
        ) from None
    except (*_PASSING, *_DOWN) as error:
        raise Unavailable(
            f"PostgreSQL does not answer ({type(error).__name__}).",
            next="Try again; nothing accepted is lost.",
            retry_after_s=1.0,
        ) from None
    except asyncpg.PostgresError as error:
        raise FlotillaError(f"PostgreSQL refused a statement: {error}") from error


async def open_journal(url: str, *, connections: int = 4) -> PostgresJournal:
    """Connects as a role that owns nothing, so that row-level security binds it.

    Raises `Unavailable` if nothing answers, `Misconfigured` if the schema is missing.
    """
    async with _translated_start(url):
        pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=connections,
            command_timeout=COMMAND_TIMEOUT_S,
            server_settings={"role": APP_ROLE, "application_name": "flotilla"},
        )
    return PostgresJournal(pool)


async def migrate(url: str) -> list[str]:
    """Brings the schema up to date; returns the names of the steps that were taken."""
    async with _translated_start(url):
        connection: asyncpg.Connection = await asyncpg.connect(url, timeout=10)
        try:
            await connection.execute("select pg_advisory_lock($1)", _MIGRATION_LOCK)
            return await _take_steps(connection)
        finally:
            await connection.close()


async def _take_steps(connection: asyncpg.Connection) -> list[str]:
    await connection.execute(
        "create table if not exists schema_steps (name text primary key, at timestamptz)"
    )
    taken = {row["name"] for row in await connection.fetch("select name from schema_steps")}
    folder = files("flotilla.stores") / "schema"
    new = sorted(f.name for f in folder.iterdir() if f.name.endswith(".sql") and f.name not in taken)
    for name in new:
        async with connection.transaction():
            await connection.execute((folder / name).read_text())
            await connection.execute("insert into schema_steps values ($1, now())", name)
    await _grant(connection)
    return new


async def _grant(connection: asyncpg.Connection) -> None:
    if not await connection.fetchval("select 1 from pg_roles where rolname = $1", APP_ROLE):
        await connection.execute(f"create role {APP_ROLE} nologin")
    await connection.execute(
        f"grant {APP_ROLE} to current_user; grant usage on schema public to {APP_ROLE};"
        f"grant select, insert on facts to {APP_ROLE};"
        f"grant select, insert, delete on unfinished to {APP_ROLE}"
    )


@asynccontextmanager
async def _translated_start(url: str):
    """Errors of starting up speak to the operator."""
    try:
        yield
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise Misconfigured(
            f"PostgreSQL refuses this user: {error}.", field="DATABASE_URL", next="Check user and password."
        ) from None
    except asyncpg.InvalidCatalogNameError as error:
        raise Misconfigured(f"{error}.", field="DATABASE_URL", next="Create the database first.") from None
    except (asyncpg.UndefinedObjectError, asyncpg.InsufficientPrivilegeError) as error:
        raise Misconfigured(
            f"The database isn't ready: {error}.",
            field="DATABASE_URL",
            next=f"Give the user the right to create roles, or create {APP_ROLE} and grant it to the user.",
        ) from None
    except (asyncpg.CannotConnectNowError, *_DOWN) as error:
        raise Unavailable(
            f"No PostgreSQL answers at DATABASE_URL ({type(error).__name__}: {error}).",
            field="DATABASE_URL",
            next="Start it, or unset DATABASE_URL to use the embedded one.",
        ) from None
