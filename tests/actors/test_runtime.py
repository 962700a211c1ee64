"""The runtime on kinds of its own: what every kind may rely on, on real links in one process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.care import Care
from actors.fleet import Fleet
from actors.link import Links
from actors.roster import Roster
from benchmarks.cluster import LOG, TOKEN
from examples.counter import Add, Total
from flotilla.core.calls import Call
from flotilla.core.effects import Message
from flotilla.core.errors import (
    Cycle,
    DeadlinePassed,
    FlotillaError,
    MailboxFull,
    Moved,
    Poisoned,
    Refused,
    TooLarge,
    Undecodable,
    UnknownKind,
)
from flotilla.core.ids import ActorId
from flotilla.core.journal import Append, Entry
from tests.actors.cluster import Cluster
from tests.actors.kinds import (
    Burst,
    Clerk,
    ClerkPerformer,
    Counter,
    Note,
    Pass,
    Read,
    Relay,
    Toil,
    Urgent,
    Wake,
)

pytestmark = pytest.mark.timeout(10)


def clerk(cluster: Cluster, name: str = "c") -> Any:
    return cluster.fleet.ref(Clerk, "demo", name)


def performer(cluster: Cluster, host: str = "a") -> ClerkPerformer:
    found = cluster.hosts[host].runtime.kinds.of("clerk").performer
    assert isinstance(found, ClerkPerformer)
    return found


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not await condition():
            await asyncio.sleep(0.002)


# -- asking


async def test_an_answer_is_of_the_type_that_the_message_declares(cluster: Cluster) -> None:
    await cluster.add("a")
    counter = cluster.fleet.ref(Counter, "demo", "n")
    assert await counter.ask(Add(id="1", n=4)) == 4
    assert await counter.ask(Add(id="2", n=5)) == 9
    assert await counter.ask(Add(id="1", n=4)) == 4  # sent again, not added again
    assert await counter.ask(Total()) == 9


async def test_actors_of_one_name_in_two_tenants_are_two(cluster: Cluster) -> None:
    await cluster.add("a")
    assert await cluster.fleet.ref(Counter, "demo", "n").ask(Add(id="1")) == 1
    assert await cluster.fleet.ref(Counter, "other", "n").ask(Total()) == 0


async def test_state_outlives_its_host(cluster: Cluster) -> None:
    await cluster.add("a")
    for n in range(25):
        await clerk(cluster).ask(Note(text=str(n)))
    await eventually(lambda: _has_snapshot(cluster))
    await cluster.kill("a")
    await cluster.add("b")
    assert await clerk(cluster).ask(Read()) == [str(n) for n in range(25)]
    snapshot, entries = await cluster.journal.load(clerk(cluster).id)
    assert snapshot is not None and len(entries) < 25 == snapshot.seq + len(entries)


async def _has_snapshot(cluster: Cluster) -> bool:
    snapshot, _ = await cluster.journal.load(clerk(cluster).id)
    return snapshot is not None


async def test_one_turn_at_a_time_in_the_order_of_arrival(cluster: Cluster) -> None:
    await cluster.add("a")
    await asyncio.gather(*(clerk(cluster).ask(Note(text=str(n))) for n in range(8)))
    assert await clerk(cluster).ask(Read()) == [str(n) for n in range(8)]


async def test_control_goes_before_what_waits(cluster: Cluster) -> None:
    await cluster.add("a")
    await clerk(cluster).ask(Note(text="first"))
    cluster.journal.gate.clear()
    asks = [asyncio.create_task(clerk(cluster).ask(Note(text=str(n)))) for n in range(3)]
    await cluster.until(lambda: cluster.hosts["a"].active[clerk(cluster).id].waiting == 2)
    urgent = asyncio.create_task(clerk(cluster).ask(Urgent()))
    await cluster.until(lambda: cluster.hosts["a"].active[clerk(cluster).id].waiting == 3)
    cluster.journal.gate.set()
    assert await urgent == ["first", "0"]
    await asyncio.gather(*asks)


async def test_what_was_tracked_waits_for_an_answer_that_comes_later(cluster: Cluster) -> None:
    await cluster.add("a")
    ask = asyncio.create_task(clerk(cluster).ask(Toil(id="t")))
    await cluster.until(lambda: performer(cluster).started == ["t"])
    assert await clerk(cluster).ask(Read()) == []  # meanwhile it listens
    performer(cluster).gate.set()
    assert await ask == "t done"


async def test_a_streamed_answer_comes_in_parts(cluster: Cluster) -> None:
    await cluster.add("a")
    performer(cluster).gate.set()
    assert [part async for part in clerk(cluster).stream(Toil(id="t", parts=3))] == [0, 1, 2, "t done"]


async def test_a_tell_arrives_and_in_order(cluster: Cluster) -> None:
    await cluster.add("a")
    await clerk(cluster).ask(Note(text="0"))
    for n in range(1, 6):
        clerk(cluster).tell(Note(text=str(n)))
    await eventually(lambda: _reads(cluster, [str(n) for n in range(6)]))


async def _reads(cluster: Cluster, wanted: list[str], name: str = "c") -> bool:
    return await clerk(cluster, name).ask(Read()) == wanted


async def test_an_actor_tells_another(cluster: Cluster) -> None:
    await cluster.add("a")
    await cluster.add("b")
    names = [f"n{n}" for n in range(8)]
    for name in names:
        await clerk(cluster, "c").ask(Pass(to=name, text=f"to {name}"))
    for name in names:
        await eventually(lambda name=name: _reads(cluster, [f"to {name}"], name))


# -- chains


async def test_a_chain_over_hosts_is_answered_by_its_last(cluster: Cluster) -> None:
    for host in ("a", "b", "c"):
        await cluster.add(host)
    path = tuple(f"n{n}" for n in range(6))
    assert await clerk(cluster, "first").ask(Relay(path=path, id="r")) == "n5"


@pytest.mark.parametrize("path", [("first",), ("second", "first"), ("second", "third", "second")])
async def test_a_cycle_is_an_error_and_no_deadlock(cluster: Cluster, path: tuple[str, ...]) -> None:
    for host in ("a", "b"):
        await cluster.add(host)
    async with asyncio.timeout(1.5):
        assert (await clerk(cluster, "first").ask(Relay(path=path, id="r"))).endswith("/cycle")


async def test_the_deadline_travels_with_the_call(cluster: Cluster) -> None:
    await cluster.add("a")
    with pytest.raises(FlotillaError):
        await clerk(cluster).ask(Toil(id="t"), timeout_s=0.2)
    (call,) = performer(cluster).calls
    assert call.left_s is not None and 0 < call.left_s <= 0.2
    assert call.chain == ("demo/clerk/c",)


async def test_who_gives_up_is_heard_of_at_the_other_end(cluster: Cluster) -> None:
    await cluster.add("a")
    ask = asyncio.create_task(clerk(cluster).ask(Toil(id="t")))
    await cluster.until(lambda: performer(cluster).started == ["t"])
    ask.cancel()
    await cluster.until(lambda: performer(cluster).cancelled == ["t"])


async def test_work_goes_on_while_somebody_still_waits(cluster: Cluster) -> None:
    await cluster.add("a")
    first = asyncio.create_task(clerk(cluster).ask(Toil(id="t")))
    await cluster.until(lambda: performer(cluster).started == ["t"])
    activation = cluster.hosts["a"].active[clerk(cluster).id]
    await cluster.until(lambda: len(activation.tickets) == 1)
    second = asyncio.create_task(clerk(cluster).ask(Toil(id="t")))
    await cluster.until(lambda: len(activation.tickets) == 2)
    first.cancel()
    await cluster.until(lambda: len(activation.tickets) == 1)
    performer(cluster).gate.set()
    assert await second == "t done"


# -- bad input: each has its error, its status and the next move


async def refusal(ask: Any) -> FlotillaError:
    with pytest.raises(FlotillaError) as caught:
        await ask
    assert caught.value.next or caught.value.retry_after_s is not None
    return caught.value


class Stranger(Message[None], frozen=True, tag="stranger"):
    pass


async def test_an_unknown_kind(cluster: Cluster) -> None:
    await cluster.add("a")
    error = await refusal(cluster.fleet.ask(ActorId("demo", "klerk", "c"), Read()))
    assert isinstance(error, UnknownKind) and error.status == 404 and "clerk" in (error.next or "")


async def test_an_unknown_message(cluster: Cluster) -> None:
    await cluster.add("a")
    error = await refusal(cluster.fleet.ask(clerk(cluster).id, Stranger()))
    assert isinstance(error, Refused) and error.status == 422
    with pytest.raises(Refused, match="takes no Stranger"):
        await clerk(cluster).ask(Stranger())


async def test_a_message_with_a_wrong_field(cluster: Cluster) -> None:
    await cluster.add("a")
    error = await refusal(cluster.fleet.ask(clerk(cluster).id, Note(text=7)))  # type: ignore[arg-type]
    assert isinstance(error, Refused) and error.field == "text"


async def test_a_message_over_the_size_limit(cluster: Cluster) -> None:
    await cluster.add("a")
    error = await refusal(clerk(cluster).ask(Note(text="x" * 1001)))
    assert isinstance(error, TooLarge) and error.status == 413 and "1000" in error.detail


async def test_a_refused_message_changes_nothing(cluster: Cluster) -> None:
    await cluster.add("a")
    error = await refusal(clerk(cluster).ask(Note(text="refuse")))
    assert isinstance(error, Refused) and error.field == "text"
    assert await clerk(cluster).ask(Read()) == []


async def test_a_full_mailbox(cluster: Cluster) -> None:
    await cluster.add("a")
    await clerk(cluster).ask(Note(text="first"))
    cluster.journal.gate.clear()
    running = asyncio.create_task(clerk(cluster).ask(Note(text="running")))
    await cluster.until(lambda: cluster.journal.held == 1)
    asks = [asyncio.create_task(clerk(cluster).ask(Note(text=str(n)))) for n in range(20)]
    await cluster.until(lambda: sum(ask.done() for ask in asks) == 12)
    cluster.journal.gate.set()
    outcomes = await asyncio.gather(running, *asks, return_exceptions=True)
    full = [outcome for outcome in outcomes if isinstance(outcome, MailboxFull)]
    assert len(full) == 12 and full[0].status == 429 and full[0].retry_after_s
    assert len(await clerk(cluster).ask(Read())) == 2 + 20 - 12


async def test_a_deadline_that_has_passed(cluster: Cluster) -> None:
    host = await cluster.add("a")
    await clerk(cluster).ask(Note(text="first"))
    cluster.journal.gate.clear()
    slow = asyncio.create_task(clerk(cluster).ask(Note(text="slow")))
    await cluster.until(lambda: bool(cluster.journal.held))
    late = asyncio.create_task(host.ask(clerk(cluster).id, Note(text="late"), Call(left_s=0.01)))
    await asyncio.sleep(0.03)
    cluster.journal.gate.set()
    error = await refusal(late)
    assert isinstance(error, DeadlinePassed) and error.status == 504
    await slow
    assert await clerk(cluster).ask(Read()) == ["first", "slow"]


async def test_a_cycle_has_its_status() -> None:
    error = Cycle("x")
    assert error.status == 508


async def test_state_that_fails_to_decode(cluster: Cluster) -> None:
    await cluster.add("a")
    id = clerk(cluster).id
    bad = Append(
        actor=id, expected=0, entries=(Entry("noted", 1, b'{"type":"noted"}'),), at=cluster.clock.now()
    )
    await cluster.journal.append(bad)
    error = await refusal(clerk(cluster).ask(Read()))
    assert isinstance(error, Undecodable) and error.status == 500 and "upcaster" in (error.next or "")
    assert await clerk(cluster, "other").ask(Read()) == []


# -- supervision


async def test_a_poison_message_is_set_aside_and_blocks_nobody(cluster: Cluster) -> None:
    await cluster.add("a")
    await clerk(cluster).ask(Note(text="before"))
    burst = asyncio.create_task(refusal(clerk(cluster).ask(Burst())))
    after = asyncio.create_task(clerk(cluster).ask(Note(text="after")))
    error = await burst
    assert isinstance(error, Poisoned) and error.status == 500
    await after
    assert await clerk(cluster).ask(Read()) == ["before", "after"]  # and nothing of what broke
    (letter,) = await cluster.letters.list("demo")
    assert letter.actor == clerk(cluster).id and letter.tries == 3 and "ZeroDivisionError" in letter.problem
    assert cluster.hosts["a"].runtime.kinds.of("clerk").codec.message(letter.message) == Burst()


async def test_a_bug_in_the_work_is_seen_and_does_not_hold_up_the_actor(cluster: Cluster) -> None:
    await cluster.add("a")
    await clerk(cluster).ask(Burst(late=True))
    assert await clerk(cluster).ask(Read()) == ["before"]


async def test_a_journal_that_is_down_refuses_and_comes_back(cluster: Cluster) -> None:
    await cluster.add("a")
    await clerk(cluster).ask(Note(text="1"))
    cluster.journal.down = True
    error = await refusal(clerk(cluster).ask(Note(text="2")))
    assert error.status == 503
    cluster.journal.down = False
    assert await clerk(cluster).ask(Read()) == ["1"]


async def test_of_two_hosts_that_believe_they_own_an_actor_one_writes(cluster: Cluster) -> None:
    a, b = await cluster.add("a", housekeeping=False), await cluster.add("b", housekeeping=False)
    id = clerk(cluster).id
    await a.ask(id, Note(text="a1"), Call())
    await b.ask(id, Note(text="b2"), Call())
    with pytest.raises(Moved):
        await a.ask(id, Note(text="a3"), Call())
    assert id not in a.active
    assert await a.ask(id, Note(text="a3"), Call()) == 3
    assert await a.ask(id, Read(), Call()) == ["a1", "b2", "a3"]


# -- reminders


async def test_a_reminder_is_noted_once_and_is_gone(cluster: Cluster) -> None:
    await cluster.add("a")
    await clerk(cluster).ask(Wake(name="tea", after_s=0.02))
    await eventually(lambda: _noted(cluster, 1))
    assert await cluster.journal.reminders(clerk(cluster).id) == []


async def _noted(cluster: Cluster, most: int) -> bool:
    return len(await clerk(cluster).ask(Read())) >= most


async def test_a_periodic_reminder_keeps_its_beat_over_the_death_of_hosts(cluster: Cluster) -> None:
    await cluster.add("a")
    await clerk(cluster).ask(Wake(name="tick", after_s=0.01, every_s=1.0))
    (set_,) = await cluster.journal.reminders(clerk(cluster).id)
    await cluster.kill("a")
    await cluster.add("b")
    await eventually(lambda: _noted(cluster, 2))
    notes = await clerk(cluster).ask(Read())
    first = set_.due.timestamp()
    assert notes[:2] == [f"tick at {first + n:g}" for n in range(2)]


async def test_a_reminder_can_be_forgotten(cluster: Cluster) -> None:
    await cluster.add("a")
    await clerk(cluster).ask(Wake(name="tea", after_s=3600))
    assert len(await cluster.journal.reminders(clerk(cluster).id)) == 1
    await clerk(cluster).ask(Wake(name="tea", forget=True))
    assert await cluster.journal.reminders(clerk(cluster).id) == []


async def test_a_reminder_that_nobody_records_fires_once_all_the_same(cluster: Cluster) -> None:
    await cluster.add("a")
    await clerk(cluster).ask(Wake(name="deaf", after_s=0.01))
    await eventually(lambda: _none_set(cluster))


async def _none_set(cluster: Cluster) -> bool:
    return await cluster.journal.reminders(clerk(cluster).id) == []


async def test_a_reminder_that_breaks_its_actor_ends_in_the_letters(cluster: Cluster) -> None:
    await cluster.add("a")
    await clerk(cluster).ask(Wake(name="bad", after_s=0.01))
    await eventually(lambda: _none_set(cluster))
    (letter,) = await cluster.letters.list("demo")
    assert "Due" in letter.problem
    assert await clerk(cluster).ask(Read()) == []


# -- coming and going


async def test_the_idle_are_passivated_and_come_back(cluster: Cluster) -> None:
    host = await cluster.add("a", housekeeping=False)
    await clerk(cluster).ask(Note(text="1"))
    await clerk(cluster, "busy").ask(Note(text="1"))
    toil = asyncio.create_task(clerk(cluster, "busy").ask(Toil(id="t")))
    await cluster.until(lambda: performer(cluster).started == ["t"])
    for activation in host.active.values():
        activation.touched -= 301
    assert Care(host).look_around() == 1
    assert set(host.active) == {clerk(cluster, "busy").id}
    performer(cluster).gate.set()
    assert await toil == "t done" and await clerk(cluster).ask(Read()) == ["1"]


async def test_under_pressure_of_memory_the_idle_go_sooner(cluster: Cluster) -> None:
    host = await cluster.add("a", housekeeping=False)
    await clerk(cluster).ask(Note(text="1"))
    host.active[clerk(cluster).id].touched -= 31
    assert Care(host).look_around() == 0
    assert Care(host, memory_bytes_max=1).look_around() == 1


async def test_an_actor_that_is_moved_answers_from_its_new_home(cluster: Cluster) -> None:
    a, b = await cluster.add("a"), await cluster.add("b")
    await clerk(cluster).ask(Note(text="1"))
    was, will = (a, b) if clerk(cluster).id in a.active else (b, a)
    await cluster.pins.pin(clerk(cluster).id, will.name)
    await cluster.refresh()
    assert was.release(clerk(cluster).id)
    assert await clerk(cluster).ask(Note(text="2")) == 2
    assert clerk(cluster).id in will.active and clerk(cluster).id not in was.active


async def test_a_stale_caller_is_sent_on_to_the_actors_home(cluster: Cluster) -> None:
    """Its roster doesn't know of the move yet."""
    await cluster.add("a")
    stale_links = Links(TOKEN)
    stale_roster = Roster(cluster.directory, cluster.clock, LOG, "host", pins=None)
    await stale_roster.refresh()
    stale = Fleet(stale_links, stale_roster, cluster.clock, LOG)
    b = await cluster.add("b")
    moved = next(f"m{n}" for n in range(99) if cluster.fleet.home(clerk(cluster, f"m{n}").id) == "b")
    assert stale.home(clerk(cluster, moved).id) == "a"
    id = clerk(cluster, moved).id
    # Its roster knows b as a member, and not that b owns the actor.
    stale_roster._members["host"] = list(cluster.members.values())
    assert await stale.ask(id, Note(text="1")) == 1
    assert set(b.active) == {id}
    await stale_links.aclose()


async def test_a_draining_host_hands_everything_on(cluster: Cluster) -> None:
    a, b = await cluster.add("a"), await cluster.add("b")
    names = [f"n{n}" for n in range(20)]
    for name in names:
        await clerk(cluster, name).ask(Note(text="1"))
    assert a.active and b.active
    await cluster.drain(a.name)
    await cluster.until(lambda: not a.active)
    answers = await asyncio.gather(*(clerk(cluster, name).ask(Note(text="2")) for name in names))
    assert answers == [2] * 20 and not a.active


async def test_no_host_at_all_is_said_so(cluster: Cluster) -> None:
    error = await refusal(cluster.fleet.ask(clerk(cluster).id, Read(), timeout_s=0.1))
    assert error.status == 503 and "host" in error.detail
