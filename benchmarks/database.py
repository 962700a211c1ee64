"""A PostgreSQL of the benchmark's own: fsync on, as a fleet's; gone when it ends."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec
import psutil

from flotilla.stores.embedded import Postgres
from flotilla.stores.postgres import PostgresJournal, migrate, open_journal

SECRET = "of-this-benchmark"


class Database(msgspec.Struct, frozen=True):
    """The record, and a way around it (`owner`) for what a benchmark may do and a fleet may not."""

    journal: PostgresJournal
    owner: asyncpg.Connection
    server: Postgres

    def memory(self) -> int:
        """Bytes, shared buffers counted once (PSS)."""
        return sum(process.memory_full_info().pss for process in self.processes())

    def cpu_s(self) -> float:
        """Seconds of a processor since it started, of those processes that still run."""
        times = [process.cpu_times() for process in self.processes()]
        return sum(t.user + t.system for t in times)

    def processes(self) -> list[psutil.Process]:
        assert self.server.pid is not None
        postmaster = psutil.Process(self.server.pid)
        return [postmaster, *postmaster.children(recursive=True)]


@asynccontextmanager
async def database() -> AsyncGenerator[Database]:
    folder = _folder()
    server = Postgres(folder, folder, f"benchmark-{folder.name}")
    try:
        server.start()
        await migrate(server.url)
        journal = await open_journal(server.url, secret=SECRET)
        owner: asyncpg.Connection = await asyncpg.connect(server.url)
        try:
            yield Database(journal, owner, server)
        finally:
            await owner.close()
            await journal.close()
    finally:
        server.remove()
        shutil.rmtree(server.data.parent, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    """A short path, as it holds a socket, that PostgreSQL's user can enter."""
    folder = Path(tempfile.mkdtemp(prefix="fb-", dir="/tmp"))
    folder.chmod(0o755)
    return folder
