"""What every journal does with snapshots."""

from __future__ import annotations

import pytest

from flotilla.core.errors import Conflict
from flotilla.core.journal import Snapshot
from flotilla.core.ports import Journal
from tests.contracts.record import ODD, actor, append, entry, stored


async def test_without_a_snapshot_all_entries_are_loaded(journal: Journal) -> None:
    id, entries = actor(), [entry(1), entry(2)]
    assert await journal.load(id) == (None, [])
    await append(journal, id, 0, *entries)
    assert await journal.load(id) == (None, stored(1, *entries))


async def test_a_snapshot_is_loaded_with_the_entries_after_it(journal: Journal) -> None:
    id, entries = actor(), [entry(n) for n in range(1, 6)]
    await append(journal, id, 0, *entries)
    snapshot = Snapshot(3, 7, ODD * 100)
    await journal.keep(id, snapshot)
    assert await journal.load(id) == (snapshot, stored(4, *entries[3:]))
    assert await journal.read(id) == stored(1, *entries)
    last = Snapshot(5, 8, b"")
    await journal.keep(id, last)
    assert await journal.load(id) == (last, [])


@pytest.mark.parametrize("seq", [1, 2])
async def test_a_snapshot_that_is_not_newer_is_ignored(journal: Journal, seq: int) -> None:
    id = actor()
    await append(journal, id, 0, entry(1), entry(2), entry(3))
    await journal.keep(id, Snapshot(2, 1, b"kept"))
    await journal.keep(id, Snapshot(seq, 1, b"late"))
    assert await journal.load(id) == (Snapshot(2, 1, b"kept"), stored(3, entry(3)))


async def test_a_snapshot_of_what_is_not_in_the_record_is_refused(journal: Journal) -> None:
    """It would hide the entries that another host writes in its place."""
    id = actor()
    await append(journal, id, 0, entry(1))
    for ahead in (id, actor()):
        with pytest.raises(Conflict):
            await journal.keep(ahead, Snapshot(2, 1, b"ahead"))
    assert await journal.load(id) == (None, stored(1, entry(1)))


async def test_actors_of_one_name_have_snapshots_of_their_own(journal: Journal) -> None:
    one = actor("t1")
    two = actor("t2", one.name)
    for id in (one, two):
        await append(journal, id, 0, entry(1))
    await journal.keep(one, Snapshot(1, 1, b"one"))
    assert await journal.load(two) == (None, stored(1, entry(1)))
