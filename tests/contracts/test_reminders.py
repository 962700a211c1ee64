"""What every journal does with reminders: they change with the entries, or not at all."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from flotilla.core.errors import Conflict
from flotilla.core.ids import ActorId, new_id
from flotilla.core.journal import BUCKETS, Due, Fired, bucket_of
from flotilla.core.ports import Journal
from flotilla.core.reminders import Cron, Every, Reminder
from tests.contracts.record import NOW, actor, append, entries_of, entry, reminder

ALL = range(BUCKETS)


async def due_of(journal: Journal, *ids: ActorId, before: datetime = NOW, limit: int = 10_000) -> list[Due]:
    """What is due of these actors alone: others of the tests wait in the same database."""
    return [due for due in await journal.due(before, ALL, limit=limit) if due.actor in ids]


def due(id: ActorId, reminder: Reminder) -> Due:
    return Due(id, reminder.name, reminder.due, reminder.repeat, reminder.all_missed)


@pytest.mark.parametrize(
    "reminder",
    [
        reminder("once 日本語"),
        reminder("every", repeat=Every(seconds=0.1)),
        reminder("cron", repeat=Cron(expression="*/5 9 * * 1-5", zone="Europe/Berlin"), all_missed=False),
    ],
    ids=lambda reminder: reminder.name,
)
async def test_a_reminder_comes_back_as_it_was_set(journal: Journal, reminder: Reminder) -> None:
    id = actor()
    await append(journal, id, 0, entry(), remind=(reminder,))
    assert await journal.reminders(id) == [reminder]
    assert await due_of(journal, id) == [due(id, reminder)]


async def test_it_is_due_at_its_time_and_not_a_microsecond_before(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, entry(), remind=(reminder(),))
    assert await due_of(journal, id, before=NOW - timedelta(microseconds=1)) == []
    assert await due_of(journal, id, before=NOW) == [due(id, reminder())]
    assert await due_of(journal, id, before=NOW + timedelta(days=999)) == [due(id, reminder())]


async def test_they_are_set_anew_and_forgotten_by_name(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, entry(), remind=(reminder("b"), reminder("a"), reminder("c")))
    await append(journal, id, 1, entry(), remind=(reminder("b", -5),), forget=("c", "never set"))
    assert await journal.reminders(id) == [reminder("a"), reminder("b", -5)]
    assert await due_of(journal, id) == [due(id, reminder("b", -5)), due(id, reminder("a"))]


async def test_of_one_name_in_one_append_the_last_word_stands(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, remind=(reminder("a", 1), reminder("a", 2)), forget=("a",))
    assert await journal.reminders(id) == [reminder("a", 2)]


async def test_they_need_no_entries(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, remind=(reminder(),))
    await append(journal, id, 0, fired=Fired("r", NOW, reminder(after_s=60)))
    assert await journal.reminders(id) == [reminder(after_s=60)] and await entries_of(journal, id) == []


async def test_the_reminders_of_a_lost_race_are_not_changed(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, entry(), remind=(reminder("a"),))
    with pytest.raises(Conflict):
        await append(journal, id, 0, entry(), remind=(reminder("b"),), forget=("a",))
    assert await journal.reminders(id) == [reminder("a")]


# -- firing


async def test_what_fired_is_gone_or_followed_by_the_next(journal: Journal) -> None:
    id, repeat = actor(), Every(seconds=60)
    await append(journal, id, 0, remind=(reminder("once"), reminder("again", repeat=repeat)))
    await append(journal, id, 0, entry(1), fired=Fired("once", NOW))
    await append(journal, id, 1, entry(2), fired=Fired("again", NOW, reminder("again", 60, repeat=repeat)))
    assert await journal.reminders(id) == [reminder("again", 60, repeat=repeat)]
    assert await entries_of(journal, id) == [entry(1), entry(2)]


async def test_what_is_not_pending_at_that_time_fires_nothing(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, entry(1), remind=(reminder("a", 60),))
    for fired in (Fired("a", NOW), Fired("b", NOW), Fired("a", NOW + timedelta(seconds=60, microseconds=1))):
        with pytest.raises(Conflict):
            await append(journal, id, 1, entry(2), fired=fired, remind=(reminder("c"),), unfinished=True)
    assert await entries_of(journal, id) == [entry(1)] and id not in await journal.unfinished()
    assert await journal.reminders(id) == [reminder("a", 60)]


async def test_each_due_time_fires_once_though_two_try(journal: Journal) -> None:
    """Without entries there is no fence but the reminder itself."""
    for _ in range(10):
        id = actor()
        await append(journal, id, 0, remind=(reminder(),))
        following = reminder(after_s=60)
        done = await asyncio.gather(
            *(append(journal, id, 0, fired=Fired("r", NOW, following)) for _ in range(3)),
            return_exceptions=True,
        )
        assert done.count(None) == 1 and sum(isinstance(outcome, Conflict) for outcome in done) == 2
        assert await journal.reminders(id) == [following]


async def test_one_that_has_fired_before_does_not_fail_the_others(journal: Journal) -> None:
    stale, others = actor(), [actor() for _ in range(40)]
    for id in others:
        await append(journal, id, 0, remind=(reminder(),))
    done = await asyncio.gather(
        append(journal, stale, 0, entry(1), fired=Fired("r", NOW)),
        *(append(journal, id, 0, entry(1), fired=Fired("r", NOW)) for id in others),
        return_exceptions=True,
    )
    assert isinstance(done.pop(0), Conflict) and done == [None] * 40
    assert await entries_of(journal, stale) == [] and await due_of(journal, *others) == []


async def test_what_follows_may_be_forgotten_or_set_anew_in_the_same_append(journal: Journal) -> None:
    id, fired = actor(), Fired("r", NOW, reminder(after_s=60))
    await append(journal, id, 0, remind=(reminder(),))
    await append(journal, id, 0, fired=fired, remind=(reminder(),))
    assert await journal.reminders(id) == [reminder()]
    await append(journal, id, 0, fired=fired, forget=("r",))
    assert await journal.reminders(id) == []


# -- what is due


async def test_the_earliest_come_first_whatever_their_bucket_and_tenant(journal: Journal) -> None:
    ids = [actor(new_id("t")) for _ in range(30)]
    long_ago = -1e8  # before those of other tests
    for n, id in enumerate(ids):
        await append(journal, id, 0, remind=(reminder("r", long_ago + n * 7 % 30),))
    found = await due_of(journal, *ids)
    assert len(found) == 30 and found == sorted(found, key=lambda due: due.at)
    assert await journal.due(NOW, ALL, limit=4) == found[:4]


async def test_a_bucket_that_is_full_of_them_hides_none_of_the_others(journal: Journal) -> None:
    busy, others = actor(), [actor() for _ in range(30)]
    long_ago = -2e8
    await append(journal, busy, 0, remind=tuple(reminder(f"r{n}", long_ago + n) for n in range(300)))
    for n, id in enumerate(others):
        await append(journal, id, 0, remind=(reminder("r", long_ago + n * 9 + 0.5),))
    found = await due_of(journal, busy, *others)
    assert len(found) == 330 and found == sorted(found, key=lambda due: due.at)
    for limit in (1, 17, 250, 330):
        assert await journal.due(found[-1].at, ALL, limit=limit) == found[:limit]
        assert await journal.due(found[-1].at, [*ALL, *ALL], limit=limit) == found[:limit]


async def test_a_host_sees_its_buckets_alone(journal: Journal) -> None:
    ids = [actor() for _ in range(60)]
    for id in ids:
        await append(journal, id, 0, remind=(reminder(),))
    seen = [
        (bucket, due.actor)
        for bucket in ALL
        for due in await journal.due(NOW, [bucket], limit=10_000)
        if due.actor in ids
    ]
    assert sorted(id for _, id in seen) == sorted(ids)
    assert all(bucket_of(id) == bucket for bucket, id in seen)
    assert await journal.due(NOW, [], limit=10) == []


def test_the_bucket_of_an_actor_is_the_same_everywhere_and_for_ever() -> None:
    """It lies in the database."""
    assert [bucket_of(ActorId("t", "session", f"s_{n}")) for n in range(5)] == [32, 1, 11, 54, 62]
    counts = [0] * BUCKETS
    for n in range(6400):
        counts[bucket_of(ActorId("t", "session", f"s_{n}"))] += 1
    assert min(counts) > 50 and max(counts) < 150
