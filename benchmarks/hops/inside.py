"""The hops that need no fleet: a link, a mailbox, the journal, the hot log. Real sockets, a real PostgreSQL with
fsync, a real Valkey with its append-only file.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from actors.link import connect
from actors.runtime import Resident
from actors.tickets import Promise
from benchmarks.cluster import Cluster
from benchmarks.database import Database, database
from benchmarks.hops.measuring import Hop, Meter, Seconds, timed
from benchmarks.links import BODY, TOKEN, Echo
from examples.counter import Add, Counter
from flotilla.core.calls import Call
from flotilla.core.ids import ActorId
from flotilla.core.journal import Append, Entry
from flotilla.stores import valkey
from flotilla.stores.embedded import Valkey

OTHERS = 64
TEXT = "a few words "
FACT = Entry("message.accepted", 1, bytes(200))

Write = Callable[[], Awaitable[None]]


async def hops(operations: int) -> list[Hop]:
    return [
        await link(operations),
        await mailbox(operations),
        *await journal(operations),
        await hot_log(operations),
    ]


async def _measure(
    operation: Callable[[], Awaitable[object]], operations: int, processes: Mapping[str, psutil.Process]
) -> tuple[list[float], Seconds]:
    """A tenth more come first, to warm up."""
    await timed(operation, operations // 10)
    meter = Meter(lambda: processes, idle_s=0)
    ms = await timed(operation, operations)
    return ms, meter.each(operations)


# -- a link between two processes


def _listen(pipe: Connection) -> None:
    async def run() -> None:
        echo = Echo()
        pipe.send(await echo.listen())
        await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


async def link(operations: int) -> Hop:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_listen, args=(there,), daemon=True)
    process.start()
    line = await connect(await asyncio.to_thread(here.recv), TOKEN)
    assert process.pid is not None
    ends = {"caller": psutil.Process(), "listener": psutil.Process(process.pid)}
    ms, cpu_us = await _measure(lambda: line.ask("echo", BODY), operations, ends)
    await line.aclose()
    here.send("end")
    await asyncio.to_thread(process.join)
    return Hop(name="link ask", about="200 bytes there and back", ms=ms, cpu_us=cpu_us, passed=2)


# -- a message through an actor, without a store


async def mailbox(operations: int) -> Hop:
    cluster = Cluster(lambda _: [Resident(Counter)])
    host = await cluster.add("a", housekeeping=False)
    await cluster.settle()
    numbers = count()

    async def turn() -> None:
        promise = Promise()
        host.deliver(ActorId("demo", "counter", "c-1"), Add(id=str(next(numbers))), promise, Call())
        await promise.future

    ms, cpu_us = await _measure(turn, operations, {"host": psutil.Process()})
    await cluster.aclose()
    about = "mailbox, run queue, activation, memory journal"
    return Hop(name="mailbox", about=about, ms=ms, cpu_us=cpu_us, passed=1)


# -- the journal


async def journal(operations: int) -> list[Hop]:
    async with database() as own:
        alone = await _appends(own, operations, others=0)
        together = await _appends(own, operations, others=OTHERS)
    return [
        Hop(name="journal append", about="one fact, sealed, fsync", ms=alone[0], cpu_us=alone[1], passed=2),
        Hop(
            name=f"journal append, {OTHERS} others",
            about="group commit: theirs and ours share it",
            ms=together[0],
            cpu_us=together[1],
        ),
    ]


async def _appends(own: Database, operations: int, others: int) -> tuple[list[float], Seconds]:
    """The times of one writer's; processor time is for each append, the others' too."""
    made = count(1)
    crowd = [asyncio.create_task(_for_ever(_writer(own, f"{others}-{n}", made))) for n in range(others)]
    processes = {"host": psutil.Process(), "postgres": psutil.Process(own.server.pid)}
    mine = _writer(own, f"{others}-me", made)
    await timed(mine, operations // 10)
    meter, before = Meter(lambda: processes, idle_s=0), next(made)
    ms = await timed(mine, operations)
    cpu_us = meter.each(next(made) - before)
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    return ms, cpu_us


def _writer(own: Database, name: str, made: count[int]) -> Write:
    actor, written = ActorId("demo", "session", f"s-{name}"), count()

    async def write() -> None:
        append = Append(actor=actor, expected=next(written), entries=(FACT,), at=datetime.now(UTC))
        await own.journal.append(append)
        next(made)

    return write


async def _for_ever(write: Write) -> None:
    while True:
        await write()


# -- the hot log


async def hot_log(operations: int) -> Hop:
    folder = Path(tempfile.mkdtemp(prefix="fh-", dir="/tmp"))
    server = Valkey(folder, folder)
    server.start()
    log = valkey.ValkeyHotLog(valkey.connect(server.url))
    said = count(0, len(TEXT))
    actor = ActorId("demo", "session", "s-1")
    processes = {"host": psutil.Process(), "valkey": psutil.Process(server.pid)}
    try:
        ms, cpu_us = await _measure(lambda: log.append(actor, "t_1", next(said), TEXT), operations, processes)
    finally:
        await log.close()
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return Hop(name="hot-log append", about=f"{len(TEXT)} characters", ms=ms, cpu_us=cpu_us, passed=1)
