"""What an operator sees of hosts and actors, and what becomes of dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

import msgspec
import pytest

from actors.inspection import Status
from actors.overview import Overview
from actors.runtime import Resident
from benchmarks import cluster as benches
from flotilla.core.actor import Actor, Fact, Kind
from flotilla.core.effects import Answer, Due, Effects, Message, Wait
from flotilla.core.errors import Conflict, NotFound, Poisoned, Refused, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.journal import Letter
from tests.actors import kinds
from tests.actors.kinds import Burst, Clerk, Note, Progress, Read, Toil


class Broken(Fact, frozen=True, kw_only=True, tag="mended"):
    id: str


class Take(Message[int], frozen=True, kw_only=True, tag="take"):
    """Breaks its actor until `Fragile.mended`; with `later` its answer is promised and never given."""

    id: str
    later: bool = False


class Fragile(Actor):
    kind: ClassVar[Kind] = Kind(name="fragile", messages=Take, facts=Broken)
    mended: ClassVar[bool] = False

    taken: list[str] = []

    def apply(self, fact: Broken) -> None:
        self.taken.append(fact.id)

    def on(self, signal: Any) -> Effects:
        if not Fragile.mended:
            raise ZeroDivisionError("a bug")
        if signal.id == "refuse":
            raise Refused("Not this one.", next="Send another.")
        last = Wait(key=signal.id) if signal.later else Answer(value=len(self.taken) + 1)
        return self.record(Broken(id=signal.id)), last


class Cluster(benches.Cluster):
    def __init__(self) -> None:
        super().__init__(Cluster._kinds)
        self.overview = Overview(self.links, self.roster, self.directory, self.pins, roles=("host",))

    def _kinds(self) -> Sequence[Resident]:
        return [*kinds.residents(), Resident(Fragile)]

    def performer(self, host: str) -> kinds.ClerkPerformer:
        performer = self.hosts[host].runtime.kinds.of("clerk").performer
        assert isinstance(performer, kinds.ClerkPerformer)
        return performer

    async def poison(self, message: Take) -> Letter:
        """The letter that `message` becomes."""
        with pytest.raises(Poisoned):
            await self.fleet.ask(fragile(), message)
        (letter,) = await self.letters.list("demo", actor=fragile())
        return letter


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    Fragile.mended = False
    yield made
    await made.aclose()


def clerk(name: str, tenant: str = "demo") -> ActorId:
    return ActorId(tenant, "clerk", name)


def fragile() -> ActorId:
    return ActorId("demo", "fragile", "f")


# -- who is awake


async def test_the_awake_of_all_hosts_of_one_tenant_are_listed(cluster: Cluster) -> None:
    for host in ("h1", "h2"):
        await cluster.add(host)
    mine = [clerk(f"c{n}") for n in range(8)]
    for actor in (*mine, clerk("other", "another")):
        await cluster.fleet.ask(actor, Note())
    awake = await cluster.overview.awake("demo")
    assert {listed.actor for _, listed in awake.actors} == set(mine)
    assert {host for host, _ in awake.actors} == {"h1", "h2"}
    assert all(listed.seq == 1 and listed.state == "idle" for _, listed in awake.actors)
    assert not awake.more and not awake.notes
    few = await cluster.overview.awake("demo", limit=3)
    assert len(few.actors) == 3 and few.more
    assert (await cluster.overview.awake("demo", kind="session")).actors == []


async def test_a_host_that_does_not_answer_is_left_out_with_a_note(cluster: Cluster) -> None:
    await cluster.add("h1")
    await cluster.fleet.ask(clerk("c"), Note())
    await cluster.enlist("gone", "127.0.0.1:1")
    awake = await cluster.overview.awake("demo")
    assert [listed.actor for _, listed in awake.actors] == [clerk("c")]
    (note,) = awake.notes
    assert note.startswith("gone doesn't answer")
    seen, notes = await cluster.overview.hosts()
    assert {host.member.name: host.status is not None for host in seen} == {"gone": False, "h1": True}
    assert len(notes) == 1


async def test_an_actor_is_shown_with_its_state_its_mailbox_and_its_work(cluster: Cluster) -> None:
    await cluster.add("h1")
    await cluster.fleet.ask(clerk("c"), Note(text="a"))
    toiling = asyncio.ensure_future(cluster.fleet.ask(clerk("c"), Toil(id="t")))
    async with asyncio.timeout(4):
        while not cluster.performer("h1").started:
            await asyncio.sleep(0.001)
    seen = (await cluster.overview.show(clerk("c"))).said["h1"]
    assert seen["state"]["notes"] == ["a"] and seen["working_on"] == ["t"] and seen["mailbox"] == []
    assert seen["listed"]["state"] == "working" and seen["listed"]["seq"] == 1
    cluster.performer("h1").gate.set()
    assert await toiling == "t done"
    assert (await cluster.overview.show(clerk("asleep"))).said == {}


# -- putting them elsewhere


async def test_who_is_passivated_wakes_with_what_it_knew(cluster: Cluster) -> None:
    await cluster.add("h1")
    await cluster.fleet.ask(clerk("c"), Note(text="a"))
    assert (await cluster.overview.passivate(clerk("c"))).said == {"h1": True}
    assert (await cluster.overview.passivate(clerk("c"))).said == {"h1": False}
    assert (await cluster.overview.show(clerk("c"))).said == {}
    assert await cluster.fleet.ask(clerk("c"), Read()) == ["a"]


async def test_a_moved_actor_lives_where_it_was_put(cluster: Cluster) -> None:
    for host in ("h1", "h2"):
        await cluster.add(host)
    await cluster.fleet.ask(clerk("c"), Note(text="a"))
    home = cluster.overview.home(clerk("c"))
    other = "h1" if home == "h2" else "h2"
    await cluster.overview.move(clerk("c"), other)
    await cluster.refresh()
    assert await cluster.overview.pinned(clerk("c")) == other
    assert await cluster.fleet.ask(clerk("c"), Read()) == ["a"]
    assert list((await cluster.overview.show(clerk("c"))).said) == [other]
    await cluster.overview.unpin(clerk("c"))
    await cluster.refresh()
    assert cluster.overview.home(clerk("c")) == home
    with pytest.raises(NotFound, match="Up: h1, h2"):
        await cluster.overview.move(clerk("c"), "nowhere")
    assert await cluster.overview.pinned(clerk("c")) is None


async def test_a_host_is_drained_unless_it_is_the_only_one(cluster: Cluster) -> None:
    first = await cluster.add("h1")
    with pytest.raises(Conflict, match="only host"):
        await cluster.overview.drain("h1")
    assert not first.draining
    await cluster.add("h2")
    assert await cluster.overview.drain("h1") == "host"
    assert first.draining
    with pytest.raises(NotFound):
        await cluster.overview.drain("h3")


# -- dead letters


async def test_a_letter_that_is_replayed_after_the_bug_is_gone_is_taken_once(cluster: Cluster) -> None:
    await cluster.add("h1")
    letter = await cluster.poison(Take(id="a"))
    Fragile.mended = True
    await cluster.fleet.replay(letter)
    seen = (await cluster.overview.show(fragile())).said["h1"]
    assert seen["state"]["taken"] == ["a"] and seen["listed"]["seq"] == 1


async def test_a_letter_that_breaks_its_actor_again_stays_and_is_not_doubled(cluster: Cluster) -> None:
    host = await cluster.add("h1")
    letter = await cluster.poison(Take(id="a"))
    with pytest.raises(Poisoned, match=letter.id):
        await cluster.fleet.replay(letter)
    assert await cluster.letters.list("demo") == [letter]
    assert host.runtime.kinds.of("fragile").counts["letters"] == 2


async def test_an_actor_that_promises_an_answer_has_taken_the_letter(cluster: Cluster) -> None:
    await cluster.add("h1")
    letter = await cluster.poison(Take(id="a", later=True))
    Fragile.mended = True
    await cluster.fleet.replay(letter)


async def test_an_actor_may_refuse_a_letter(cluster: Cluster) -> None:
    await cluster.add("h1")
    letter = await cluster.poison(Take(id="refuse"))
    Fragile.mended = True
    with pytest.raises(Refused, match="Not this one"):
        await cluster.fleet.replay(letter)
    assert await cluster.letters.list("demo") == [letter]


async def test_what_nobody_can_send_is_not_replayed(cluster: Cluster) -> None:
    await cluster.add("h1")
    now = cluster.clock.now()
    for signal, why in ((Due(name="r", at=now), "reminder"), (Progress(id="p", n=0, last=True), "own work")):
        message = msgspec.msgpack.encode(signal)
        letter = Letter(id="x", actor=clerk("c"), at=now, message=message, problem="ValueError", tries=3)
        with pytest.raises(Refused, match=why):
            await cluster.fleet.replay(letter)
    with pytest.raises(Refused, match="can't be read"):
        await cluster.fleet.replay(
            Letter(
                id="x",
                actor=clerk("c"),
                at=now,
                message=msgspec.msgpack.encode({"signal": "note", "text": 7}),
                problem="ValueError",
                tries=3,
            )
        )


async def test_without_a_host_a_letter_is_not_replayed(cluster: Cluster) -> None:
    letter = Letter(
        id="x", actor=clerk("c"), at=cluster.clock.now(), message=b"", problem="ValueError", tries=3
    )
    with pytest.raises(Unavailable):
        await cluster.fleet.replay(letter, timeout_s=0.05)


# -- what is counted


async def test_a_host_counts_by_kind_what_its_actors_do(cluster: Cluster) -> None:
    await cluster.add("h1")
    for _ in range(5):
        await cluster.fleet.ask(clerk("c"), Note())
    with pytest.raises(Refused):
        await cluster.fleet.ask(clerk("c"), Note(text="refuse"))
    with pytest.raises(Poisoned):
        await cluster.fleet.ask(clerk("d"), Burst())
    status: Status = (await cluster.overview.statuses()).said["h1"]
    clerks = status.kinds["clerk"]
    assert clerks.counts["facts"] == 5 and clerks.counts["refused"] == 1
    assert clerks.counts["crashes"] == Clerk.kind.limits.tries_max and clerks.counts["letters"] == 1
    assert clerks.active == status.activations == 2
    handled = clerks.counts["messages"]
    assert sum(clerks.turns.counts) == handled == 6 + Clerk.kind.limits.tries_max
    assert sum(clerks.waits.counts) == 7
    assert sum(clerks.activations.counts) == 2
    assert clerks.waits.total_s > 0 and clerks.turns.total_s > 0
    assert status.alarm is not None and status.alarm.failing == 0
    await cluster.overview.passivate(clerk("c"))
    status = (await cluster.overview.statuses()).said["h1"]
    assert status.kinds["clerk"].active == status.activations == 1
