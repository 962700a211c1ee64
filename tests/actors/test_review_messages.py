"""A message is taken once, whatever breaks after it was; and whoever waits hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flotilla.core import effects
from flotilla.core.calls import Call
from flotilla.core.errors import DeadlinePassed, FlotillaError, Moved, Unavailable
from flotilla.core.journal import Append
from flotilla.core.reminders import Reminder
from tests.actors.cluster import Cluster
from tests.actors.probes import Act, Probe, ProbePerformer, See, Toiled, probed
from tests.timing import AT_ONCE_S

pytestmark = pytest.mark.timeout(15)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    Probe.wakes_break, Probe.given = False, 0
    made = probed()
    yield made
    await made.aclose()


def probe(cluster: Cluster, name: str = "p") -> Any:
    return cluster.fleet.ref(Probe, "demo", name)


def performer(cluster: Cluster, host: str = "a") -> ProbePerformer:
    found = cluster.hosts[host].runtime.kinds.of("probe").performer
    assert isinstance(found, ProbePerformer)
    return found


async def recorded(cluster: Cluster, name: str = "p") -> int:
    return len(await cluster.journal.store.read(probe(cluster, name).id))


# -- taken once


@pytest.mark.parametrize("what", ["blow", "answer and blow"])
async def test_what_breaks_behind_its_record_is_not_taken_again(cluster: Cluster, what: str) -> None:
    await cluster.add("a")
    async with asyncio.timeout(3):
        if what == "blow":
            with pytest.raises(Unavailable):
                await probe(cluster).ask(Act(what=what))
        else:
            assert await probe(cluster).ask(Act(what=what)) == "done"
    counts = cluster.hosts["a"].runtime.kinds.of("probe").counts
    await cluster.until(lambda: counts["crashes"] == 1)
    assert await probe(cluster).ask(See()) == ["x"]
    assert await recorded(cluster) == 1 and counts["crashes"] == 1


async def test_who_waits_for_an_actor_that_moves_is_not_resent(cluster: Cluster) -> None:
    """It was taken: what it led to is in the record."""
    host = await cluster.add("a")
    ask = asyncio.create_task(probe(cluster).ask(Act(what="toil")))
    await cluster.until(lambda: performer(cluster).started == 1)
    assert host.release(probe(cluster).id)
    with pytest.raises(Unavailable) as caught:
        await ask
    assert not isinstance(caught.value, Moved)
    assert await recorded(cluster) == 1


async def test_a_conflict_behind_a_record_does_not_resend_the_message(cluster: Cluster) -> None:
    await cluster.add("a")
    with pytest.raises(Unavailable) as caught:
        await probe(cluster).ask(Act(what="rival"))
    assert not isinstance(caught.value, Moved)
    assert await probe(cluster).ask(See()) == ["x", "rival"]


async def test_a_refusal_behind_a_fold_leaves_nothing_in_memory(cluster: Cluster) -> None:
    await cluster.add("a")
    with pytest.raises(FlotillaError):
        await probe(cluster).ask(Act(what="on raises"))
    assert await probe(cluster).ask(See()) == []


# -- nobody waits for ever


async def test_a_promise_before_a_record_is_kept(cluster: Cluster) -> None:
    await cluster.add("a")
    assert await probe(cluster).ask(Act(what="wait first")) == "done"


async def test_a_crash_tells_those_who_wait(cluster: Cluster) -> None:
    await cluster.add("a")
    ask = asyncio.create_task(probe(cluster).ask(Act(what="toil")))
    await cluster.until(lambda: performer(cluster).started == 1)
    await probe(cluster).ask(Act(what="answer and blow"))
    async with asyncio.timeout(2):
        with pytest.raises(Unavailable):
            await ask


async def test_who_left_before_the_promise_is_heard_of(cluster: Cluster) -> None:
    await cluster.add("a")
    await probe(cluster).ask(Act(what="note"))
    cluster.journal.gate.clear()
    ask = asyncio.create_task(probe(cluster).ask(Act(what="toil")))
    await cluster.until(lambda: cluster.journal.held == 1)
    ask.cancel()
    await asyncio.gather(ask, return_exceptions=True)
    await cluster.fleet.ping()  # what was sent before it has arrived
    cluster.journal.gate.set()
    await cluster.until(lambda: performer(cluster).cancelled == 1)


async def test_an_ask_that_cannot_be_sent_comes_back_as_a_problem(cluster: Cluster) -> None:
    await cluster.add("a")
    assert (await probe(cluster).ask(Act(what="unsendable"), timeout_s=2)).endswith("/refused")


async def test_an_actor_that_goes_on_behind_the_deadline_has_time_of_its_own(cluster: Cluster) -> None:
    """Others may have come to wait for the same answer."""
    await cluster.add("a")
    call = Call(left_s=0.05, chain=("demo/probe/other",))
    cluster.hosts["a"].deliver(probe(cluster).id, Act(what="late"), None, call)

    async def noted() -> list[str]:
        return await probe(cluster).ask(See())

    async with asyncio.timeout(2):
        while len(found := await noted()) < 2:
            await asyncio.sleep(0.01)
    assert found[1] == "fine"


async def test_a_time_that_is_up_says_so_near_and_far(cluster: Cluster) -> None:
    host = await cluster.add("a")
    for fleet in (cluster.fleet, host.runtime.fleet):
        with pytest.raises(DeadlinePassed):
            await fleet.ask(probe(cluster).id, Act(what="toil"), timeout_s=0.05)


async def test_behind_an_answer_nobody_is_in_the_chain(cluster: Cluster) -> None:
    """a asks b, which answers, works and then asks a: nobody waits for that in a circle."""
    await cluster.add("a")
    host = cluster.hosts["a"]
    call = Call(chain=("demo/probe/back",), left_s=5.0)
    assert await host.ask(probe(cluster).id, Act(what="answer, then ask back", to="other"), call) == "done"
    await cluster.until(lambda: probe(cluster, "back").id in host.active)
    assert len(await probe(cluster).ask(See())) == 1  # no problem has come


# -- poison


async def test_an_actor_that_breaks_as_it_wakes_is_set_aside_once(cluster: Cluster) -> None:
    await cluster.add("a", housekeeping=False)
    await probe(cluster).ask(Act(what="note", text="open"))
    cluster.hosts["a"].release(probe(cluster).id)
    Probe.wakes_break = True
    cluster.hosts["a"].activate(probe(cluster).id)
    await cluster.until(lambda: Probe.given == 1)
    assert await probe(cluster).ask(See()) == ["open"]
    assert len(await cluster.letters.list("demo")) == 1
    assert not cluster.hosts["a"].active[probe(cluster).id].actor.unfinished


async def test_work_that_breaks_its_actor_again_and_again_writes_one_letter(cluster: Cluster) -> None:
    host = await cluster.add("a", housekeeping=False)
    await probe(cluster).ask(Act(what="note", text="open"))
    at = host.active[probe(cluster).id]
    for n in range(1, 9):
        at.hear(Toiled(value="break"))
        await cluster.until(lambda n=n: at.resident.counts["crashes"] == n and not at._running)
    assert len(await cluster.letters.list("demo")) == 1
    assert await probe(cluster).ask(See()) == ["open"]


class Odd:
    """Equals everything, and no letter can hold it."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


async def test_what_no_letter_can_hold_is_set_aside_all_the_same(cluster: Cluster) -> None:
    host = await cluster.add("a", housekeeping=False)
    await probe(cluster).ask(Act(what="note"))
    at = host.active[probe(cluster).id]
    at.crashes = {"Toiled": 2}
    at.hear(Toiled(value=Odd()))
    await cluster.until(lambda: at.resident.counts["letters"] == 1)
    assert await probe(cluster).ask(See()) == ["x"]


async def test_an_error_that_nobody_can_write_stops_no_host(cluster: Cluster) -> None:
    await cluster.add("a")
    with pytest.raises(FlotillaError):
        await probe(cluster).ask(Act(what="unsayable"), timeout_s=1)
    assert await probe(cluster, "other").ask(See(), timeout_s=1) == []
    assert await probe(cluster).ask(See(), timeout_s=1) == []


async def test_a_poisoned_reminder_leaves_the_record_as_it_is(cluster: Cluster) -> None:
    """What the broken memory says of unfinished work is not written down."""
    host = await cluster.add("a", housekeeping=False)
    id = probe(cluster).id
    await probe(cluster).ask(Act(what="note", text="open"))
    now = cluster.clock.now()
    set_ = Reminder(name="bad", due=now)
    await cluster.journal.append(
        Append(actor=id, expected=1, entries=(), at=now, unfinished=True, remind=(set_,))
    )
    with pytest.raises(FlotillaError):
        await cluster.fleet.due(id, effects.Due(name="bad", at=now))
    await cluster.until(lambda: not host.active[id]._running)
    assert await cluster.journal.reminders(id) == []
    assert await cluster.journal.unfinished() == [id]


# -- reminders


async def test_a_reminder_that_has_fired_already_is_let_go_at_once(cluster: Cluster) -> None:
    """Two hosts may believe that it is theirs to deliver."""
    host = await cluster.add("a", housekeeping=False)
    id, now = probe(cluster).id, cluster.clock.now()
    await cluster.journal.append(
        Append(actor=id, expected=0, entries=(), at=now, remind=(Reminder(name="tea", due=now),))
    )
    due = effects.Due(name="tea", at=now)
    await cluster.fleet.due(id, due)
    async with asyncio.timeout(AT_ONCE_S):
        await cluster.fleet.due(id, due)
    assert await probe(cluster).ask(See()) == ["due tea"]
    assert host.runtime.kinds.of("probe").counts["passivations"] <= 1
