"""The way to PostgreSQL: connections, the steps of the schema, and errors in the fleet's own words."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.resources import files

import asyncpg

from flotilla.core.errors import Conflict, Erased, FlotillaError, Misconfigured, Refused, Unavailable

Pool = asyncpg.Pool
Record = asyncpg.Record
APP_ROLE = "flotilla_app"
COMMAND_TIMEOUT_S = 10.0
_MIGRATION_LOCK = 5_137_204

# The client's own: a connection whose server was killed while it said good-bye can't be reset.
_DOWN = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    TimeoutError,
)
# Shut down or starting, deadlocked or cancelled, failed over to a replica: all pass by themselves.
_PASSING = (
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
)


class KeyGone(Unavailable):
    """A key was dropped after it was looked up: nothing was written, and another one may be made."""


def erased() -> Erased:
    return Erased("What is recorded of this actor was erased.", next="Begin with a new one.")


def _raised(error: asyncpg.PostgresError) -> FlotillaError:
    """What the functions of the schema raise."""
    match getattr(error, "sqlstate", ""):
        case "FL001":
            return KeyGone("A key was dropped meanwhile.", next="Try again.", retry_after_s=0.0)
        case "FL002":
            return erased()
        case "FL003":
            return Conflict("The reminder has fired already, or was changed.")
        case state if state.startswith("22"):  # a NUL in a text, a number out of range
            return Refused(
                "This has a character or a number that can't be recorded.",
                next="Send no NUL characters, and no numbers past 64 bits.",
            )
        case _:
            return FlotillaError(f"PostgreSQL refused a statement: {error}")


@asynccontextmanager
async def translated():
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
        raise _raised(error) from error


async def open_pool(url: str, *, connections: int) -> asyncpg.Pool:
    """Connects as a role that owns nothing, so that row-level security binds it.

    Raises `Unavailable` if nothing answers, `Misconfigured` if the schema is missing.
    """
    async with _translated_start(url):
        return await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=connections,
            command_timeout=COMMAND_TIMEOUT_S,
            reset=_nothing,
            server_settings={"role": APP_ROLE, "application_name": "flotilla"},
        )


async def _nothing(_: asyncpg.Connection) -> None:
    """Every statement of ours is a transaction by itself and sets what it needs for that alone, so there is
    nothing to reset: it would be one more round trip for each."""


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
        f"grant select, insert on facts, charges to {APP_ROLE};"
        f"grant select, insert, update on charges_by_day, api_keys to {APP_ROLE};"
        f"grant select, insert, delete on unfinished, keys, letters to {APP_ROLE};"
        f"grant select, insert, update, delete on snapshots, reminders to {APP_ROLE};"
        f"grant execute on function unfinished_actors, due_reminders, find_api_key to {APP_ROLE}"
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
