"""Messages that actors could not take."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from flotilla.core.errors import Erased
from flotilla.core.ids import ActorId, new_id
from flotilla.core.journal import Letter
from flotilla.core.ports import Letters
from flotilla.stores.memory import MemoryJournal
from flotilla.stores.postgres import PostgresJournal
from tests.contracts.record import NOW, ODD, actor, append, entry


def letter(actor: ActorId, age_s: float = 0.0, id: str | None = None) -> Letter:
    return Letter(
        id=id or new_id("x"),
        actor=actor,
        at=NOW - timedelta(seconds=age_s),
        message=ODD,
        problem="ValueError in Add: naïve \0 日本語",
        tries=3,
    )


async def test_letters_come_back_as_they_were_put_oldest_first(letters: Letters) -> None:
    tenant = new_id("t")
    put = [letter(actor(tenant), age_s) for age_s in (1, 3, 2)]
    for one in put:
        await letters.put(one)
    assert await letters.list(tenant) == [put[1], put[2], put[0]]
    assert await letters.list(tenant, limit=2) == [put[1], put[2]]
    assert await letters.list(tenant, actor=put[0].actor) == [put[0]]
    assert await letters.list(tenant, actor=actor(tenant)) == []


async def test_a_letter_that_is_put_again_is_kept_as_it_was(letters: Letters) -> None:
    one = letter(actor(new_id("t")))
    await letters.put(one)
    await letters.put(msgspec.structs.replace(one, tries=9, problem="other"))
    assert await letters.list(one.actor.tenant) == [one]


async def test_a_letter_is_removed_once(letters: Letters) -> None:
    one = letter(actor(new_id("t")))
    await letters.put(one)
    assert await letters.read(one.actor.tenant, one.id) == one
    assert await letters.remove(one.actor.tenant, one.id) == one
    assert await letters.remove(one.actor.tenant, one.id) is None
    assert await letters.read(one.actor.tenant, one.id) is None
    assert await letters.list(one.actor.tenant) == []


async def test_tenants_are_apart(letters: Letters) -> None:
    one, two = letter(actor(new_id("t")), id="x"), letter(actor(new_id("t")), id="x")
    for each in (one, two):
        await letters.put(each)
    assert await letters.read(one.actor.tenant, "x") == one
    assert await letters.read(new_id("t"), "x") is None
    assert await letters.remove(new_id("t"), "x") is None and await letters.list(new_id("t")) == []
    assert await letters.remove(one.actor.tenant, "x") == one
    assert await letters.list(two.actor.tenant) == [two]


async def test_letters_go_with_the_person_of_their_actor(recorder: MemoryJournal | PostgresJournal) -> None:
    tenant = new_id("t")
    gone, kept, own = actor(tenant), actor(tenant), actor(tenant)
    for id, person in ((gone, "zoë"), (kept, "max"), (own, "")):
        await append(recorder, id, 0, entry(1), person=person)
        await recorder.letters.put(letter(id, id=id.name))
    await recorder.erase(tenant, "zoë")
    assert {one.actor for one in await recorder.letters.list(tenant)} == {kept, own}
    assert await recorder.letters.remove(tenant, gone.name) is None
    assert await recorder.erase(tenant, f"actor:{own.key}")
    assert [one.actor for one in await recorder.letters.list(tenant)] == [kept]


async def test_no_letter_is_kept_of_what_was_erased(postgres_journal: PostgresJournal) -> None:
    id = actor(new_id("t"))
    await append(postgres_journal, id, 0, entry(1), person="zoë")
    await postgres_journal.erase(id.tenant, "zoë")
    with pytest.raises(Erased):
        await postgres_journal.letters.put(letter(id))
    assert await postgres_journal.letters.list(id.tenant) == []
