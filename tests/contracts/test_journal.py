"""What every journal does, and what PostgreSQL's does besides."""

from __future__ import annotations

import asyncio

import pytest

from flotilla.core.errors import Conflict
from flotilla.core.ids import new_id
from flotilla.core.ports import Journal
from tests.contracts.record import NOW, ODD, actor, append, entries_of, entry

# -- every journal


async def test_entries_come_back_as_they_went_in_numbered_from_one(journal: Journal) -> None:
    """Bytes of any kind, of any version: what they mean is not the journal's business."""
    id = actor()
    entries = [entry(1), entry(body=ODD, version=7), entry(body=b""), entry(body=ODD * 1000)]
    await append(journal, id, 0, entries[0])
    await append(journal, id, 1, *entries[1:])
    read = await journal.read(id)
    assert [r.entry for r in read] == entries and [r.seq for r in read] == [1, 2, 3, 4]
    assert all(r.at == NOW for r in read)


async def test_an_actor_without_entries_reads_as_empty(journal: Journal) -> None:
    assert await journal.read(actor()) == []


async def test_reading_after_a_seq_and_up_to_a_limit(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, entry(0), *(entry(n) for n in range(2, 7)))
    assert [r.seq for r in await journal.read(id, after=2)] == [3, 4, 5, 6]
    assert [r.seq for r in await journal.read(id, after=2, limit=2)] == [3, 4]
    assert await journal.read(id, after=6) == [] and await journal.read(id, after=99) == []


async def test_a_stale_writer_gets_a_conflict_and_leaves_nothing(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, entry(0))
    for stale in (entry(1), entry(2)):
        with pytest.raises(Conflict):
            await append(journal, id, 0, stale, entry(99))
    assert await entries_of(journal, id) == [entry(0)]


async def test_a_writer_from_the_future_gets_a_conflict_so_that_there_are_no_gaps(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, entry(0))
    with pytest.raises(Conflict):
        await append(journal, id, 5, entry(6))
    assert [r.seq for r in await journal.read(id)] == [1]


async def test_of_two_writers_that_race_exactly_one_wins(journal: Journal) -> None:
    for _ in range(10):
        id = actor()
        ours, theirs = (entry(0), entry(1), entry(2)), (entry(0), entry(3))
        done = await asyncio.gather(
            append(journal, id, 0, *ours), append(journal, id, 0, *theirs), return_exceptions=True
        )
        assert sorted(type(outcome) for outcome in done if outcome is not None) == [Conflict]
        assert await entries_of(journal, id) == list(ours if done[0] is None else theirs)


async def test_a_conflict_fails_only_its_own_actor(journal: Journal) -> None:
    stale, others = actor(), [actor() for _ in range(60)]
    await append(journal, stale, 0, entry(0))
    done = await asyncio.gather(
        *(append(journal, id, 0, entry(0), entry(2)) for id in others[:30]),
        append(journal, stale, 0, entry(9)),
        *(append(journal, id, 0, entry(0), entry(2)) for id in others[30:]),
        return_exceptions=True,
    )
    assert isinstance(done.pop(30), Conflict) and done == [None] * 60
    assert await entries_of(journal, stale) == [entry(0)]
    for id in others:
        assert await entries_of(journal, id) == [entry(0), entry(2)]


async def test_whatever_bytes_one_actor_has_the_others_are_recorded(journal: Journal) -> None:
    odd, other = actor(), actor()
    done = await asyncio.gather(
        append(journal, odd, 0, entry(body=b"\0 \x1b \xff")), append(journal, other, 0, entry(0))
    )
    assert done == [None, None] and await entries_of(journal, odd) == [entry(body=b"\0 \x1b \xff")]


async def test_the_unfinished_flag_is_that_of_the_last_append(journal: Journal) -> None:
    id = actor()
    for n, flag in enumerate([True, True, False, True, False]):
        await append(journal, id, n, entry(n), unfinished=flag)
        assert (id in await journal.unfinished()) == flag


async def test_a_lost_race_leaves_the_unfinished_flag_alone(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, entry(1), unfinished=True)
    with pytest.raises(Conflict):
        await append(journal, id, 0, entry(99), unfinished=False)
    assert id in await journal.unfinished()


async def test_unfinished_actors_of_all_tenants_are_found(journal: Journal) -> None:
    ids = [actor("t1"), actor("t2"), actor("t3", kind="agent")]
    await asyncio.gather(*(append(journal, id, 0, entry(0), unfinished=True) for id in ids))
    assert set(ids) <= set(await journal.unfinished())


async def test_a_list_is_newest_first_in_pages_with_first_and_last_entry(journal: Journal) -> None:
    tenant = new_id("t")
    ids = [actor(tenant, f"s_{n:02}") for n in range(7)]
    for id in ids:
        await append(journal, id, 0, entry(0))
    await append(journal, ids[3], 1, entry(2), entry(99))
    found, before = [], None
    while page := await journal.actors(tenant, "session", before=before, limit=3):
        found += page
        before = page[-1][0].name
    assert [id for id, _ in found] == ids[::-1]
    ends = dict(found)
    assert [r.seq for r in ends[ids[3]]] == [1, 3] and ends[ids[3]][1].entry == entry(99)
    assert [r.seq for r in ends[ids[0]]] == [1]


async def test_a_list_is_in_one_order_whatever_the_letters(journal: Journal) -> None:
    tenant, names = new_id("t"), ["a", "B", "b", "A", "_", "s_1", "s-1", "s1", "Z", "z.9", "z:9"]
    for name in names:
        await append(journal, actor(tenant, name), 0, entry(0))
    found = [id.name for id, _ in await journal.actors(tenant, "session")]
    assert found == sorted(names, reverse=True)


async def test_a_list_has_one_tenant_and_one_kind(journal: Journal) -> None:
    one, two = new_id("t"), new_id("t")
    for id in (actor(one, "s"), actor(two, "s"), actor(one, "s", "agent"), actor(one, "s", "a_b")):
        await append(journal, id, 0, entry(0))
    await append(journal, actor(one, "x", "axb"), 0, entry(0))
    for kind in ("session", "agent", "a_b"):
        assert [id for id, _ in await journal.actors(one, kind)] == [actor(one, "s", kind)]
    assert await journal.actors(new_id("t"), "session") == []


async def test_the_same_name_of_two_tenants_is_two_actors(journal: Journal) -> None:
    one, two = actor(new_id("t"), "s"), actor(new_id("t"), "s")
    await asyncio.gather(append(journal, one, 0, entry(0)), append(journal, two, 0, entry(1)))
    assert await entries_of(journal, one) == [entry(0)] and await entries_of(journal, two) == [entry(1)]


async def test_appends_of_one_actor_that_wait_together_keep_their_order(journal: Journal) -> None:
    id, others = actor(), [actor() for _ in range(20)]
    await asyncio.gather(
        *(append(journal, other, 0, entry()) for other in others),
        *(append(journal, id, n, entry(n)) for n in range(10)),
    )
    assert await entries_of(journal, id) == [entry(n) for n in range(10)]


async def test_an_append_of_nothing_holds_to_the_fence(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, unfinished=True)
    await append(journal, id, 0, entry(1))
    await append(journal, id, 1, unfinished=True)
    assert id in await journal.unfinished()
    for stale in (0, 2):
        with pytest.raises(Conflict):
            await append(journal, id, stale)
    assert id in await journal.unfinished() and await entries_of(journal, id) == [entry(1)]
