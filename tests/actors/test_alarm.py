"""Reminders come at their time, never before; again until the record knows; late rather than lost.

Time is turned by hand: `Clock.turn` stops at every moment for which somebody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

import pytest
import structlog.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import alarm as bounds
from actors.alarm import Alarm
from flotilla.core import effects
from flotilla.core.errors import Conflict, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.journal import Append, Due, Fired
from flotilla.core.policy.schedule import following
from flotilla.core.reminders import Every, Reminder, Repeat
from flotilla.stores.memory import MemoryJournal

START = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
ALL = range(64)
ON_TIME_S = 0.1
SILENT = structlog.wrap_logger(structlog.testing.ReturnLogger(), processors=[])


class TurnedClock:
    """Implements `Clock`; `turn` is the only thing that moves it."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._set = timedelta()
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self._spent) + self._set

    def monotonic(self) -> float:
        return self._spent

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._spent + seconds, next(self._order), woken))
        await woken

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._set += timedelta(seconds=seconds)

    async def turn(self, seconds: float) -> None:
        until = self._spent + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, woken = heapq.heappop(self._sleepers)
            self._spent = max(self._spent, at)
            if not woken.done():
                woken.set_result(None)
            await settle()
        self._spent = until
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Record(MemoryJournal):
    """Reads can be made to wait and to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = False
        self.reads = 0
        self.gate: asyncio.Event | None = None

    async def due(self, before: datetime, buckets: Sequence[int], *, limit: int) -> list[Due]:
        self.reads += 1
        if self.failing:
            raise Unavailable("PostgreSQL does not answer.")
        found = await super().due(before, buckets, limit=limit)
        if self.gate is not None:
            await self.gate.wait()
        return found


class Stage:
    """One alarm over a record, and what it delivered when."""

    def __init__(self, record: Record | None = None, clock: TurnedClock | None = None) -> None:
        self.clock = clock or TurnedClock()
        self.record = record or Record()
        self.mine: Sequence[int] = ALL
        self.told: list[tuple[str, float]] = []  # actor's name, seconds after it was due
        self.under_way = 0
        self.before_answer: Callable[[ActorId], Awaitable[None]] | None = None
        self.alarm = Alarm(self.record, self.deliver, lambda: self.mine, self.clock, SILENT)

    async def set(
        self,
        name: str,
        in_s: float,
        repeat: Repeat | None = None,
        *,
        all_missed: bool = True,
    ) -> None:
        due = self.clock.now() + timedelta(seconds=in_s)
        reminder = Reminder(name="r", due=due, repeat=repeat, all_missed=all_missed)
        await self.append(actor(name), remind=(reminder,))

    async def forget(self, name: str) -> None:
        await self.append(actor(name), forget=("r",))

    async def append(
        self,
        id: ActorId,
        *,
        remind: tuple[Reminder, ...] = (),
        forget: tuple[str, ...] = (),
        fired: Fired | None = None,
    ) -> None:
        await self.record.append(
            Append(
                actor=id,
                expected=0,
                entries=(),
                at=self.clock.now(),
                remind=remind,
                forget=forget,
                fired=fired,
            )
        )

    async def deliver(self, id: ActorId, due: effects.Due) -> None:
        """As the host does: the actor hears it, and what it records takes the reminder along."""
        self.under_way += 1
        try:
            if self.before_answer is not None:
                await self.before_answer(id)
            reminder = Reminder(name=due.name, due=due.at, repeat=due.repeat, all_missed=due.all_missed)
            next = following(reminder, self.clock.now())
            await self.append(id, fired=Fired(due.name, due.at, next))
            self.told.append((id.name, (self.clock.now() - due.at).total_seconds()))
        finally:
            self.under_way -= 1

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        task = asyncio.create_task(self.alarm.run())
        await settle()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()


def actor(name: str) -> ActorId:
    return ActorId("acme", "ticket", name)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    async with made.running():
        yield made


# -- in time


async def test_a_reminder_comes_at_its_time_and_not_before(stage: Stage) -> None:
    await stage.set("a", 60.0)
    await stage.clock.turn(59.999)
    assert stage.told == []
    await stage.clock.turn(0.001 + bounds.GRAIN_S)
    ((name, late),) = stage.told
    assert name == "a"
    assert 0 <= late <= bounds.GRAIN_S


@pytest.mark.parametrize("set_at_ms", range(0, 60, 7))
@pytest.mark.parametrize("in_ms", [0, 1, 10, 49, 51, 99, 150, 260])
async def test_one_that_is_set_for_soon_is_on_time(stage: Stage, set_at_ms: int, in_ms: int) -> None:
    await stage.clock.turn(1 + set_at_ms / 1000)
    await stage.set("a", in_ms / 1000)
    await stage.clock.turn(1.0)
    ((_, late),) = stage.told
    assert 0 <= late <= ON_TIME_S


async def test_a_periodic_one_keeps_to_its_period(stage: Stage) -> None:
    await stage.set("a", 1.0, Every(seconds=1.5))
    await stage.clock.turn(31.1)
    assert stage.names == ["a"] * 21
    assert all(0 <= late <= bounds.GRAIN_S for _, late in stage.told)


async def test_after_an_outage_each_missed_time_comes_or_one_for_all() -> None:
    stage = Stage()
    await stage.set("each", 1.0, Every(seconds=60))
    await stage.set("one", 1.0, Every(seconds=60), all_missed=False)
    await stage.clock.turn(600.0)
    async with stage.running():
        await stage.clock.turn(2.0)
    assert Counter(stage.names) == {"each": 11, "one": 2}  # ten missed, and the one of 601 s


async def test_one_that_was_forgotten_does_not_come(stage: Stage) -> None:
    await stage.set("a", 1.0)
    await stage.clock.turn(0.9)  # the alarm knows of it by now
    await stage.forget("a")
    await stage.clock.turn(60.0)
    assert stage.told == []


async def test_only_buckets_of_this_host_are_looked_after(stage: Stage) -> None:
    for n in range(40):
        await stage.set(str(n), 1.0)
    stage.mine = range(32)
    await stage.clock.turn(3.0)
    mine = set(stage.names)
    assert 0 < len(mine) < 40
    stage.mine = ()
    reads = stage.record.reads
    await stage.clock.turn(3.0)
    assert stage.record.reads - reads <= 1
    stage.mine = range(32, 64)
    await stage.clock.turn(1.0)
    assert sorted(stage.names, key=int) == [str(n) for n in range(40)]


# -- once, and again


async def test_one_is_not_delivered_again_while_its_delivery_runs(stage: Stage) -> None:
    let_go = asyncio.Event()
    tries = 0

    async def slow(_: ActorId) -> None:
        nonlocal tries
        tries += 1
        await let_go.wait()

    stage.before_answer = slow
    await stage.set("a", 0.5)
    await stage.clock.turn(30.0)
    assert (tries, stage.under_way) == (1, 1)
    assert stage.alarm.lag_s == pytest.approx(29.5)
    let_go.set()
    await stage.clock.turn(1.0)
    assert (tries, stage.names, stage.alarm.lag_s) == (1, ["a"], 0.0)


async def test_a_look_that_saw_the_record_before_the_delivery_delivers_nothing_twice(stage: Stage) -> None:
    let_go = asyncio.Event()

    async def slow(_: ActorId) -> None:
        await let_go.wait()

    stage.before_answer = slow
    await stage.set("a", 0.5)
    await stage.clock.turn(0.6)
    stage.record.gate = asyncio.Event()
    await stage.clock.turn(0.2)  # a look has read that the reminder is pending, and is slow to say so
    let_go.set()
    await stage.clock.turn(0.2)
    assert stage.names == ["a"]
    conflicts = count_conflicts(stage)
    stage.record.gate.set()
    await stage.clock.turn(5.0)
    assert stage.names == ["a"]
    assert conflicts == []


def count_conflicts(stage: Stage) -> list[ActorId]:
    """Deliveries from now on: for a reminder that has gone each would be a Conflict."""
    seen: list[ActorId] = []

    async def note(id: ActorId) -> None:
        seen.append(id)

    stage.before_answer = note
    return seen


async def test_a_failed_delivery_is_tried_again_less_and_less_often(stage: Stage) -> None:
    tried: list[float] = []

    async def fails(_: ActorId) -> None:
        tried.append(stage.clock.monotonic())
        if len(tried) < 12:
            raise Unavailable("No host answers.")

    stage.before_answer = fails
    await stage.set("a", 1.0)
    await stage.clock.turn(3.0)
    assert stage.alarm.failing == 1
    await stage.clock.turn(240.0)
    waits = [b - a for a, b in pairwise(tried)]
    for n, wait in enumerate(waits):
        expected = min(bounds.RETRY_FIRST_S * 2**n, bounds.RETRY_MAX_S)
        assert expected <= wait <= expected + bounds.LOOK_EVERY_S + bounds.GRAIN_S
    assert stage.names == ["a"]
    assert stage.alarm.failing == 0


async def test_an_error_that_says_when_to_try_again_is_heard(stage: Stage) -> None:
    tried: list[float] = []

    async def fails(_: ActorId) -> None:
        tried.append(stage.clock.monotonic())
        if len(tried) == 1:
            raise Unavailable("Moving.", retry_after_s=5.0)

    stage.before_answer = fails
    await stage.set("a", 1.0)
    await stage.clock.turn(10.0)
    assert 5.0 <= tried[1] - tried[0] <= 5.0 + bounds.LOOK_EVERY_S + bounds.GRAIN_S


async def test_a_bug_in_one_actor_stops_nobody_else(stage: Stage) -> None:
    async def breaks(id: ActorId) -> None:
        if id.name == "bad":
            raise ZeroDivisionError

    stage.before_answer = breaks
    await stage.set("bad", 1.0)
    await stage.set("good", 1.0)
    await stage.clock.turn(60.0)
    assert stage.names == ["good"]
    assert (stage.alarm.failing, stage.alarm.lag_s) == (1, 0.0)


async def test_an_answer_that_was_recorded_but_not_heard_is_not_asked_for_again(stage: Stage) -> None:
    async def unknown_outcome(id: ActorId) -> None:
        (pending,) = await stage.record.reminders(id)
        await stage.append(id, fired=Fired(pending.name, pending.due))
        raise Unavailable("The connection broke.")

    stage.before_answer = unknown_outcome
    await stage.set("a", 1.0)
    await stage.clock.turn(1.06)
    asked = count_conflicts(stage)
    await stage.clock.turn(60.0)
    assert (asked, stage.alarm.failing) == ([], 0)


async def test_of_two_hosts_that_believe_they_own_a_bucket_one_wins() -> None:
    record, clock = Record(), TurnedClock()
    stages = [Stage(record, clock), Stage(record, clock)]
    for n in range(50):
        await stages[0].set(str(n), 0.5 + n / 100)
    async with stages[0].running(), stages[1].running():
        await clock.turn(5.0)
    assert sorted(stages[0].names + stages[1].names, key=int) == [str(n) for n in range(50)]
    assert [stage.alarm.failing for stage in stages] == [0, 0]


# -- too much at once


async def test_more_than_can_be_delivered_are_late_bounded_and_visible(stage: Stage) -> None:
    most = 0

    async def takes_a_second(_: ActorId) -> None:
        nonlocal most
        most = max(most, stage.under_way)
        await stage.clock.sleep(1.0)

    stage.before_answer = takes_a_second
    many = 3 * bounds.DELIVERIES_MAX + 10
    for n in range(many):
        await stage.set(str(n), 1 + n / 1_000_000)
    await stage.clock.turn(3.5)
    assert len(stage.told) == 2 * bounds.DELIVERIES_MAX
    assert stage.alarm.lag_s == pytest.approx(2.5, abs=0.01)
    await stage.clock.turn(3.0)
    assert stage.names == [str(n) for n in range(many)]  # the earliest first
    assert most == bounds.DELIVERIES_MAX
    assert stage.alarm.lag_s == 0.0


async def test_a_delivery_that_ends_makes_room_at_once(stage: Stage) -> None:
    async def takes_a_moment(_: ActorId) -> None:
        await stage.clock.sleep(0.001)

    stage.before_answer = takes_a_moment
    for n in range(bounds.READ_MAX):
        await stage.set(str(n), 1.0)
    await stage.clock.turn(1.0 + bounds.GRAIN_S + 0.005)
    assert len(stage.told) == bounds.READ_MAX


async def test_many_that_fail_do_not_keep_others_waiting(stage: Stage) -> None:
    async def fails(id: ActorId) -> None:
        if id.name.startswith("bad"):
            raise Unavailable("Erased, unknown, or otherwise never to be.")

    stage.before_answer = fails
    for n in range(bounds.READ_MAX + 500):
        await stage.set(f"bad{n}", 0.0)
    await stage.clock.turn(5.0)
    await stage.set("good", 1.0)
    await stage.clock.turn(1.0 + ON_TIME_S)
    assert stage.names == ["good"]
    assert stage.alarm.failing == bounds.READ_MAX + 500


# -- when the record is away, and when clocks jump


async def test_while_the_record_cannot_be_read_they_are_late_and_not_lost(stage: Stage) -> None:
    for n in range(20):
        await stage.set(str(n), 5.0 + n / 10)
    stage.record.failing = True
    await stage.clock.turn(30.0)
    assert stage.told == []
    assert stage.alarm.lag_s == pytest.approx(30.0, abs=0.1)
    stage.record.failing = False
    await stage.clock.turn(ON_TIME_S)
    assert stage.names == [str(n) for n in range(20)]
    assert stage.alarm.lag_s == 0.0


async def test_a_slow_record_does_not_delay_what_is_known(stage: Stage) -> None:
    await stage.set("a", 1.0)
    await stage.clock.turn(0.9)
    stage.record.gate = asyncio.Event()
    await stage.clock.turn(0.2)
    assert stage.names == ["a"]


async def test_a_clock_that_is_set_back_neither_loses_nor_doubles(stage: Stage) -> None:
    await stage.set("fired", 1.0)
    await stage.set("near", 2.2)
    await stage.set("repeated", 1.0, Every(seconds=10.0), all_missed=False)
    await stage.clock.turn(2.1)
    assert sorted(stage.names) == ["fired", "repeated"]
    stage.clock.jump(-300.0)
    await stage.clock.turn(290.0)
    assert sorted(stage.names) == ["fired", "repeated"]
    await stage.clock.turn(11.0)
    assert sorted(stage.names) == ["fired", "near", "repeated"]
    assert all(late >= 0 for _, late in stage.told)


async def test_a_clock_that_is_set_forward_makes_them_come_at_once_each_once(stage: Stage) -> None:
    for n in range(10):
        await stage.set(str(n), 30.0 * (n + 1))
    await stage.clock.turn(1.0)
    stage.clock.jump(300.0)
    await stage.clock.turn(ON_TIME_S)
    assert stage.names == [str(n) for n in range(10)]
    stage.clock.jump(-300.0)
    await stage.clock.turn(301.0)
    assert len(stage.told) == 10


async def test_cancelling_ends_the_deliveries_and_the_next_alarm_has_them() -> None:
    stage = Stage()

    async def never(_: ActorId) -> None:
        await asyncio.Event().wait()

    stage.before_answer = never
    await stage.set("a", 1.0)
    async with stage.running():
        await stage.clock.turn(2.0)
        assert stage.under_way == 1
    assert stage.under_way == 0
    heir = Stage(stage.record, stage.clock)
    async with heir.running():
        await heir.clock.turn(ON_TIME_S)
    assert heir.names == ["a"]


async def test_a_delivery_that_ends_though_cancelled_starts_no_other() -> None:
    stage = Stage()
    started: list[ActorId] = []

    async def finishes(id: ActorId) -> None:
        started.append(id)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    stage.before_answer = finishes
    for n in range(bounds.DELIVERIES_MAX + 5):
        await stage.set(str(n), 1.0)
    async with stage.running():
        await stage.clock.turn(2.0)
    assert len(started) == len(stage.told) == bounds.DELIVERIES_MAX


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_whatever_happens_each_due_time_is_answered_once(seed: int) -> None:
    asyncio.run(_misfortunes(random.Random(seed)))


async def _misfortunes(chance: random.Random) -> None:
    """Slow and failing deliveries, a record that comes and goes, a second alarm, clocks that jump."""
    record, clock = Record(), TurnedClock()
    stages = [Stage(record, clock), Stage(record, clock)]

    async def fate(_: ActorId) -> None:
        await clock.sleep(chance.choice((0.0, 0.01, 0.3)))
        if chance.random() < 0.3:
            raise chance.choice((Unavailable("Down."), Conflict("Lost."), RuntimeError("A bug.")))

    for stage in stages:
        stage.before_answer = fate
    async with stages[0].running(), stages[1].running():
        for n in range(40):
            await stages[0].set(str(n), chance.uniform(0, 4))
            await clock.turn(chance.uniform(0, 0.2))
            record.failing = chance.random() < 0.3
            if chance.random() < 0.1:
                clock.jump(chance.uniform(-2, 2))
        record.failing = False
        for stage in stages:
            stage.before_answer = None
        await clock.turn(60.0)
    told = stages[0].told + stages[1].told
    assert sorted((name for name, _ in told), key=int) == [str(n) for n in range(40)]
    assert await record.due(clock.now() + timedelta(days=1), ALL, limit=10) == []
