"""What every journal does when a person is erased."""

from __future__ import annotations

import asyncio

import pytest

from flotilla.core.errors import Erased
from flotilla.core.ids import ActorId, new_id
from flotilla.core.journal import Snapshot
from flotilla.core.ports import Journal
from tests.contracts.record import actor, append, entries_of, entry, reminder, stored


async def erased(journal: Journal, id: ActorId) -> bool:
    """Whether nothing of the actor can be loaded or read from its beginning."""
    for read in (journal.load(id), journal.read(id)):
        try:
            await read
        except Erased:
            continue
        return False
    return True


async def test_what_a_person_said_is_erased_wherever_it_was_said(journal: Journal) -> None:
    tenant, one, two, other = new_id("t"), "zoë@example.com", "z" * 5000, "'; drop table keys; --"
    ids = {person: [actor(tenant), actor(tenant, kind="agent")] for person in (one, two, other)}
    for person, mine in ids.items():
        await asyncio.gather(*(append(journal, id, 0, entry(1), person=person) for id in mine))
    assert await journal.erase(tenant, one) and not await journal.erase(tenant, one)
    for id in ids[one]:
        assert await erased(journal, id)
    for id in ids[two] + ids[other]:
        assert await entries_of(journal, id) == [entry(1)]


async def test_a_person_of_another_tenant_is_another_person(journal: Journal) -> None:
    one, two = actor(new_id("t")), actor(new_id("t"))
    for id in (one, two):
        await append(journal, id, 0, entry(1), person="zoë")
    assert await journal.erase(one.tenant, "zoë")
    assert await erased(journal, one) and await entries_of(journal, two) == [entry(1)]


async def test_nobody_is_not_there_to_be_erased(journal: Journal) -> None:
    assert not await journal.erase(new_id("t"), "nobody")


async def test_an_actor_without_a_person_is_erased_by_its_own_name(journal: Journal) -> None:
    id, other = actor(), actor()
    for one in (id, other):
        await append(journal, one, 0, entry(1))
    assert await journal.erase(id.tenant, f"actor:{id.key}")
    assert await erased(journal, id) and await entries_of(journal, other) == [entry(1)]


async def test_who_still_holds_an_erased_actor_can_write_nothing_more_of_it(journal: Journal) -> None:
    """It would go on from what was erased, and keep that in a snapshot under another key."""
    id = actor()
    await append(journal, id, 0, entry(1), entry(2), person="zoë")
    await journal.erase(id.tenant, "zoë")
    for person in ("zoë", "", "somebody else"):
        for write in (
            append(journal, id, 2, entry(3), person=person),
            append(journal, id, 2, person=person, remind=(reminder(),)),
            journal.keep(id, Snapshot(2, 1, b"what was erased"), person=person),
        ):
            with pytest.raises(Erased):
                await write
    assert not await journal.erase(id.tenant, "zoë"), "no new key was made for it"
    assert await erased(journal, id) and await journal.reminders(id) == []


async def test_an_erased_actor_does_not_fail_the_appends_beside_it(journal: Journal) -> None:
    id, others = actor(), [actor() for _ in range(30)]
    await append(journal, id, 0, entry(1), person="zoë")
    await journal.erase(id.tenant, "zoë")
    done = await asyncio.gather(
        append(journal, id, 1, entry(2), person="zoë"),
        *(append(journal, other, 0, entry(1)) for other in others),
        return_exceptions=True,
    )
    assert isinstance(done.pop(0), Erased) and done == [None] * 30


async def test_a_person_may_come_back_with_a_new_actor(journal: Journal) -> None:
    old, new = actor(), actor()
    await append(journal, old, 0, entry(1), person="zoë")
    await journal.erase(old.tenant, "zoë")
    await append(journal, new, 0, entry(1), person="zoë")
    assert await entries_of(journal, new) == [entry(1)] and await erased(journal, old)
    with pytest.raises(Erased):
        await append(journal, old, 1, entry(2), person="zoë")


async def test_a_snapshot_goes_with_each_person_that_it_tells_of(journal: Journal) -> None:
    """Also where it lies under the key of another one."""
    for gone in ("zoë", "max"):
        id = actor(new_id("t"))
        await append(journal, id, 0, entry(1), person="zoë")
        await append(journal, id, 1, entry(2), person="max")
        await journal.keep(id, Snapshot(1, 1, b"zoe's"), person="zoë")
        await journal.keep(id, Snapshot(2, 1, b"of both"), person="max")
        assert (await journal.load(id))[0] == Snapshot(2, 1, b"of both")
        assert await journal.erase(id.tenant, gone)
        assert await erased(journal, id)
        with pytest.raises(Erased):
            await journal.keep(id, Snapshot(2, 1, b"of both again"), person="third")


async def test_what_another_person_said_later_can_still_be_read(journal: Journal) -> None:
    id = actor()
    await append(journal, id, 0, entry(1), person="zoë")
    await append(journal, id, 1, entry(2), person="max")
    await journal.erase(id.tenant, "zoë")
    assert await journal.read(id, after=1) == stored(2, entry(2)) and await erased(journal, id)


async def test_lists_leave_out_what_was_erased_and_are_full_all_the_same(journal: Journal) -> None:
    tenant = new_id("t")
    first, last, *kept = [actor(tenant, f"s_{n}") for n in (9, 8, 7, 6, 5)]
    for id in (first, last, *kept):
        await append(journal, id, 0, entry(1), person="zoë" if id == first else "max")
    await append(journal, last, 1, entry(2), person="zoë")
    await journal.erase(tenant, "zoë")
    assert [id for id, _ in await journal.actors(tenant, "session", limit=2)] == kept[:2]
    assert [id for id, _ in await journal.actors(tenant, "session")] == kept


async def test_nobody_is_called_to_go_on_with_what_was_erased(journal: Journal) -> None:
    gone, kept = actor(), actor()
    for id, person in ((gone, "zoë"), (kept, "max")):
        await append(journal, id, 0, entry(1), person=person, unfinished=True, remind=(reminder(),))
    await journal.erase(gone.tenant, "zoë")
    unfinished = await journal.unfinished()
    assert gone not in unfinished and kept in unfinished
    assert await journal.reminders(gone) == [] and await journal.reminders(kept) == [reminder()]
