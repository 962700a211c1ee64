"""How late do reminders come, at 1,000 a second, with a million pending? `python -m benchmarks.reminders`.

A PostgreSQL of its own (fsync on), one alarm. The pending million sleeps: its due times are days away. Beside
it 10,000 actors are reminded every 10 seconds, evenly spread. An actor is told as a host does it: its journal
is loaded the first time, then one append takes the due reminder out, sets the one that follows and records a
fact. Lateness counts from the due time: until the actor is told, and until its answer is durable.

The alarm, the actors' appends and the figures are made in one process on one core; PostgreSQL has the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from statistics import median
from typing import Literal

import asyncpg
import msgspec
import numpy as np
import psutil
import structlog

from actors.alarm import Alarm
from benchmarks.database import database
from benchmarks.report import Result, arguments, report
from flotilla.core import effects
from flotilla.core.clock import SystemClock
from flotilla.core.ids import ActorId
from flotilla.core.journal import BUCKETS, Append, Entry, Fired
from flotilla.core.policy.schedule import following
from flotilla.core.reminders import Every, Reminder
from flotilla.stores.postgres import PostgresJournal

FIRES_PER_S = 1_000
PERIOD_S = 10
AWAKE = FIRES_PER_S * PERIOD_S  # actors
TENANT, KIND, NAME = "benchmark", "ticket", "sla"
SETTING_AT_A_TIME = 500
WARM_UP_S = 2.0
PATIENCE_S = 30.0  # for what is late
ROUNDS = 3
LATENESS_TARGET_MS = 100.0
BYTES_TARGET = 200.0

_SLEEPERS = """
    insert into reminders (tenant, actor, name, bucket, due, repeat, all_missed, key)
    select $1, $2 || '/sleeper-' || n, $3, n % $4, now() + interval '1 day' + n * interval '1 second', null, true, 0
    from generate_series(1, $5) n
"""
_BRING_FORWARD = "update reminders set due = due - $1::interval where actor like 'ticket/awake-%'"
_AWAKE = "select actor, due from reminders where actor like 'ticket/awake-%'"
_OVERDUE = "select count(*) from reminders where due < $1"
_ANSWERED = """
    select r.actor, r.due, count(f.seq) as answers from reminders r
    left join facts f on f.tenant = r.tenant and f.actor = r.actor and f.type = 'reminded'
    where r.actor like 'ticket/awake-%' group by r.actor, r.due
"""


class Fire(msgspec.Struct, frozen=True):
    """A due time and, in seconds after it, when its actor was told and when the answer was durable."""

    due: datetime
    told: float
    recorded: float

    @property
    def answered(self) -> datetime:
        return self.due + timedelta(seconds=self.recorded)


class Fires:
    """The actors, as a host holds them: their last `seq`."""

    def __init__(self, journal: PostgresJournal) -> None:
        self._journal = journal
        self._seqs: dict[ActorId, int] = {}
        self._clock = SystemClock()
        self.all: list[Fire] = []

    async def set(self, number: int, base: datetime) -> None:
        due = base + timedelta(seconds=number / FIRES_PER_S)
        reminder = Reminder(name=NAME, due=due, repeat=Every(seconds=PERIOD_S))
        await self._append(ActorId(TENANT, KIND, f"awake-{number}"), 0, "opened", remind=(reminder,))

    async def deliver(self, id: ActorId, due: effects.Due) -> None:
        told = self._late(due)
        if (seq := self._seqs.get(id)) is None:
            _, entries = await self._journal.load(id)
            seq = entries[-1].seq
        reminder = Reminder(name=due.name, due=due.at, repeat=due.repeat, all_missed=due.all_missed)
        fired = Fired(due.name, due.at, following(reminder, self._clock.now()))
        await self._append(id, seq, "reminded", fired=fired)
        self._seqs[id] = seq + 1
        self.all.append(Fire(due.at, told, self._late(due)))

    def _late(self, due: effects.Due) -> float:
        return (self._clock.now() - due.at).total_seconds()

    async def _append(
        self,
        id: ActorId,
        expected: int,
        type: str,
        *,
        remind: tuple[Reminder, ...] = (),
        fired: Fired | None = None,
    ) -> None:
        entry = Entry(type, 1, b'{"type":"%s","note":"The customer waits."}' % type.encode())
        await self._journal.append(
            Append(
                actor=id,
                expected=expected,
                entries=(entry,),
                at=self._clock.now(),
                remind=remind,
                fired=fired,
            )
        )


# --- the run ---


async def measure(pending: int, seconds: float) -> list[Result]:
    async with database() as own:
        journal, owner = own.journal, own.owner
        empty = await resident_bytes(journal)
        took = await lay_down(owner, pending)
        disk: int = await owner.fetchval("select pg_total_relation_size('reminders')") or 0
        print(f"{pending:,} pending reminders laid down in {took:.1f} s.")
        asleep = max(0.0, await resident_bytes(journal) - empty) / pending
        fires = Fires(journal)
        first = await set_awake(fires, owner)
        spent, began = time.process_time(), time.monotonic()
        since, until = await run(journal, owner, fires, min(first.values()), seconds)
        cores = (time.process_time() - spent) / (time.monotonic() - began)
        print(f"The alarm, the appends and this benchmark used {cores:.0%} of a core.")
        lost, doubled = await count(owner, first, until)
    rate = len([fire for fire in fires.all if since <= fire.answered < until]) / seconds
    return [
        *lateness(fires.all, since, until),
        figure("reminders_pending", pending, "", "higher"),
        figure("reminders_fired_per_s", rate, "/s", "higher"),
        figure("reminders_lost", lost, "", "lower", target=0),
        figure("reminders_doubled", doubled, "", "lower", target=0),
        figure("memory_bytes_per_pending", asleep, "B", "lower", target=BYTES_TARGET),
        figure("disk_bytes_per_pending", disk / pending, "B", "lower"),
    ]


async def lay_down(owner: asyncpg.Connection, pending: int) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    await owner.execute(_SLEEPERS, TENANT, KIND, NAME, BUCKETS, pending, timeout=300)
    await owner.execute("vacuum analyze reminders", timeout=300)
    return time.monotonic() - began


@asynccontextmanager
async def ringing(journal: PostgresJournal, fires: Fires) -> AsyncGenerator[None]:
    alarm = Alarm(journal, fires.deliver, lambda: range(BUCKETS), SystemClock(), structlog.get_logger())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(alarm.run())
        yield
        task.cancel()


async def resident_bytes(journal: PostgresJournal) -> int:
    """Of this process, after its alarm has looked at what is pending for a while."""
    async with ringing(journal, Fires(journal)):
        await asyncio.sleep(2.0)
        return psutil.Process().memory_info().rss


async def set_awake(fires: Fires, owner: asyncpg.Connection) -> dict[str, datetime]:
    """Through the front door; then their due times are moved to begin in a second. Returns those, by actor."""
    later = SystemClock().now() + timedelta(hours=1)
    for first in range(0, AWAKE, SETTING_AT_A_TIME):
        await asyncio.gather(*(fires.set(n, later) for n in range(first, first + SETTING_AT_A_TIME)))
    begin = SystemClock().now() + timedelta(seconds=1)
    await owner.execute(_BRING_FORWARD, later - begin)
    return {row["actor"]: row["due"] for row in await owner.fetch(_AWAKE)}


async def run(
    journal: PostgresJournal, owner: asyncpg.Connection, fires: Fires, begin: datetime, seconds: float
) -> tuple[datetime, datetime]:
    """Rings until what was due in the measured time has been answered; returns that time."""
    since = begin + timedelta(seconds=WARM_UP_S)
    until = since + timedelta(seconds=seconds)
    async with ringing(journal, fires):
        await asyncio.sleep((until - SystemClock().now()).total_seconds())
        for _ in range(round(PATIENCE_S / 0.1)):
            if not await owner.fetchval(_OVERDUE, until):
                break
            await asyncio.sleep(0.1)
    return since, until


async def count(owner: asyncpg.Connection, first: dict[str, datetime], until: datetime) -> tuple[int, int]:
    """By the record itself: due times without an answer, and answers beyond one for each."""
    rows = await owner.fetch(_ANSWERED)
    lost = doubled = 0
    for row in rows:
        # Those before the one that is pending, and before the end of the measured time.
        passed = -(-(max(row["due"], until) - first[row["actor"]]) // timedelta(seconds=PERIOD_S))
        lost += max(0, passed - row["answers"])
        doubled += max(0, row["answers"] - passed)
    return lost + AWAKE - len(rows), doubled


# --- the figures ---


def lateness(fires: Sequence[Fire], since: datetime, until: datetime) -> list[Result]:
    span = (until - since) / ROUNDS
    rounds = [
        [fire for fire in fires if since + n * span <= fire.due < since + (n + 1) * span]
        for n in range(ROUNDS)
    ]
    told = [[fire.told * 1000 for fire in fires] for fires in rounds]
    recorded = [[fire.recorded * 1000 for fire in fires] for fires in rounds]
    return [
        percentile("reminder_lateness_p99_ms", recorded, 99, LATENESS_TARGET_MS),
        percentile("reminder_lateness_p50_ms", recorded, 50),
        percentile("reminder_told_p99_ms", told, 99),
        percentile("reminder_told_p50_ms", told, 50),
    ]


def percentile(
    measure: str, rounds: Sequence[Sequence[float]], q: int, target: float | None = None
) -> Result:
    values = [float(np.percentile(values, q)) for values in rounds]
    return Result(
        measure=measure,
        value=round(median(values), 2),
        unit="ms",
        better="lower",
        target=target,
        samples=sum(map(len, rounds)),
        spread=round((max(values) - min(values)) / median(values), 3),
    )


def figure(
    measure: str, value: float, unit: str, better: Literal["lower", "higher"], target: float | None = None
) -> Result:
    return Result(measure=measure, value=round(value, 2), unit=unit, better=better, target=target)


def main() -> None:
    options = arguments("reminders", "Lateness at 1,000 fires a second, with a million pending.").parse_args()
    pending, seconds = (100_000, 8.0) if options.quick else (1_000_000, 30.0)
    report("reminders", asyncio.run(measure(pending, seconds)), options.json)


if __name__ == "__main__":
    main()
