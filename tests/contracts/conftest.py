"""Real servers for the contracts of the stores: started once a run, in a folder of their own, and removed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from flotilla.core.access import KeyStore, Notices, Quotas
from flotilla.core.clock import SystemClock
from flotilla.core.ports import Directory, HotLog, Journal, Letters, Once, Pins, UsageLedger
from flotilla.stores import valkey
from flotilla.stores.embedded import Postgres, Valkey
from flotilla.stores.memory import MemoryDirectory, MemoryHotLog, MemoryJournal, MemoryOnce, MemoryPins
from flotilla.stores.memory_api_keys import MemoryApiKeys
from flotilla.stores.memory_ledger import MemoryLedger
from flotilla.stores.memory_quotas import MemoryNotices, MemoryQuotas
from flotilla.stores.postgres import PostgresJournal, migrate, open_journal
from flotilla.stores.valkey_notices import ValkeyNotices
from flotilla.stores.valkey_quotas import ValkeyQuotas
from tests.contracts.record import SECRET


@pytest.fixture(scope="session")
def store_folder() -> Iterator[Path]:
    """A short path, as it holds sockets, that PostgreSQL's user can enter."""
    folder = Path(tempfile.mkdtemp(prefix="fc-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(store_folder: Path) -> Iterator[Postgres]:
    server = Postgres(store_folder, store_folder, f"contracts-{store_folder.name}")
    server.start()
    yield server
    server.remove()
    shutil.rmtree(server.data.parent, ignore_errors=True)


@pytest.fixture(scope="session")
def valkey_server(store_folder: Path) -> Iterator[Valkey]:
    server = Valkey(store_folder, store_folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def postgres_journal(postgres_server: Postgres) -> AsyncIterator[PostgresJournal]:
    await migrate(postgres_server.url)
    opened = await open_journal(postgres_server.url, secret=SECRET)
    yield opened
    await opened.close()


@pytest.fixture(params=["memory", "postgres"])
async def recorder(request: pytest.FixtureRequest) -> AsyncIterator[MemoryJournal | PostgresJournal]:
    """A journal with its letters."""
    if request.param == "memory":
        yield MemoryJournal()
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    await migrate(server.url)
    opened = await open_journal(server.url, secret=SECRET)
    yield opened
    await opened.close()


@pytest.fixture
def journal(recorder: MemoryJournal | PostgresJournal) -> Journal:
    return recorder


@pytest.fixture
def letters(recorder: MemoryJournal | PostgresJournal) -> Letters:
    return recorder.letters


@pytest.fixture(params=["memory", "valkey"])
async def hot_log(request: pytest.FixtureRequest) -> AsyncIterator[HotLog]:
    if request.param == "memory":
        yield MemoryHotLog()
        return
    opened = valkey.ValkeyHotLog(valkey.connect(request.getfixturevalue("valkey_server").url))
    yield opened
    await opened.close()


@pytest.fixture(params=["memory", "valkey"])
async def directory(request: pytest.FixtureRequest) -> AsyncIterator[Directory]:
    if request.param == "memory":
        yield MemoryDirectory()
        return
    opened = valkey.ValkeyDirectory(valkey.connect(request.getfixturevalue("valkey_server").url))
    yield opened
    await opened.close()


@pytest.fixture(params=["memory", "valkey"])
async def once(request: pytest.FixtureRequest) -> AsyncIterator[Once]:
    if request.param == "memory":
        yield MemoryOnce()
        return
    client = valkey.connect(request.getfixturevalue("valkey_server").url)
    yield valkey.ValkeyOnce(client)
    await client.aclose()


@pytest.fixture(params=["memory", "valkey"])
async def pins(request: pytest.FixtureRequest) -> AsyncIterator[Pins]:
    if request.param == "memory":
        yield MemoryPins()
        return
    client = valkey.connect(request.getfixturevalue("valkey_server").url)
    await client.delete("flotilla:pins")
    yield valkey.ValkeyPins(client)
    await client.aclose()


@pytest.fixture(params=["memory", "postgres"])
async def usage_ledger(request: pytest.FixtureRequest) -> AsyncIterator[UsageLedger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    await migrate(server.url)
    opened = await open_journal(server.url, secret=SECRET)
    yield opened.ledger
    await opened.close()


@pytest.fixture(params=["memory", "postgres"])
async def key_store(request: pytest.FixtureRequest) -> AsyncIterator[KeyStore]:
    if request.param == "memory":
        yield MemoryApiKeys()
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    await migrate(server.url)
    opened = await open_journal(server.url, secret=SECRET)
    yield opened.api_keys
    await opened.close()


@pytest.fixture(params=["memory", "valkey"])
async def quotas(request: pytest.FixtureRequest) -> AsyncIterator[Quotas]:
    if request.param == "memory":
        yield MemoryQuotas(SystemClock())
        return
    client = valkey.connect(request.getfixturevalue("valkey_server").url)
    yield ValkeyQuotas(client)
    await client.aclose()


@pytest.fixture(params=["memory", "valkey"])
async def notices(request: pytest.FixtureRequest) -> AsyncIterator[Notices]:
    if request.param == "memory":
        yield MemoryNotices()
        return
    client = valkey.connect(request.getfixturevalue("valkey_server").url)
    await client.delete("flotilla:notices")
    yield ValkeyNotices(client)
    await client.aclose()
