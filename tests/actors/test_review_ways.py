"""The ways to an actor are one: near or far, known or not, nothing is skipped, held on to or left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from actors.doubt import FRESH_S
from actors.fleet import Fleet
from actors.follower import Follower, Local
from actors.link import Links
from actors.mailbox import Envelope
from actors.roster import Roster
from actors.tickets import Stream
from benchmarks.cluster import LOG, TOKEN
from flotilla.core.effects import Message
from flotilla.core.errors import FlotillaError, Moved, Refused, TooLarge
from flotilla.core.journal import Append, Entry, Snapshot
from tests.actors.cluster import Cluster
from tests.actors.kinds import Clerk, Note, Read, Toil
from tests.actors.probes import Act, Probe, ProbePerformer, See, probed
from tests.actors.sinks import Got
from tests.timing import AT_ONCE_S

pytestmark = pytest.mark.timeout(15)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = probed()
    yield made
    await made.aclose()


def probe(cluster: Cluster, name: str = "p") -> Any:
    return cluster.fleet.ref(Probe, "demo", name)


def performer(cluster: Cluster, host: str = "a") -> ProbePerformer:
    found = cluster.hosts[host].runtime.kinds.of("probe").performer
    assert isinstance(found, ProbePerformer)
    return found


# -- near as far


class Stranger(Message[None], frozen=True, tag="stranger"):
    pass


@pytest.mark.parametrize(
    ("message", "error"),
    [(Stranger(), Refused), (Note(text="x" * 1001), TooLarge), (Note(text=7), Refused)],  # type: ignore[arg-type]
)
@pytest.mark.parametrize("near", [True, False])
async def test_bad_input_is_refused_near_and_far(
    cluster: Cluster, near: bool, message: Message[Any], error: type[FlotillaError]
) -> None:
    host = await cluster.add("a")
    fleet = host.runtime.fleet if near else cluster.fleet
    id = fleet.ref(Clerk, "demo", "c").id
    with pytest.raises(error):
        await fleet.ask(id, message)
    fleet.tell(id, message)
    await asyncio.sleep(0)
    assert await fleet.ask(id, Read()) == []
    assert host.runtime.kinds.of("clerk").counts["crashes"] == 0


@pytest.mark.parametrize("near", [True, False])
async def test_actors_share_no_memory_with_their_callers(cluster: Cluster, near: bool) -> None:
    host = await cluster.add("a")
    fleet = host.runtime.fleet if near else cluster.fleet
    id = probe(cluster).id
    (await fleet.ask(id, See())).append("not recorded")
    assert await fleet.ask(id, See()) == []


# -- the way there


def stranger_to(cluster: Cluster) -> tuple[Links, Roster, Fleet]:
    links = Links(TOKEN)
    roster = Roster(cluster.directory, cluster.clock, LOG, "host")
    return links, roster, Fleet(links, roster, cluster.clock, LOG)


async def moved_to_b(cluster: Cluster) -> tuple[Links, Roster, Fleet, Any]:
    """Somebody who knows of `a` alone, and an actor that lives at `b`."""
    await cluster.add("a", housekeeping=False)
    links, roster, fleet = stranger_to(cluster)
    await roster.refresh()
    await cluster.add("b", housekeeping=False)
    name = next(f"m{n}" for n in range(99) if cluster.fleet.home(probe(cluster, f"m{n}").id) == "b")
    id = probe(cluster, name).id
    assert fleet.home(id) == "a"
    return links, roster, fleet, id


async def test_who_is_sent_to_a_host_that_it_does_not_know_waits_to_hear_of_it(cluster: Cluster) -> None:
    links, roster, fleet, id = await moved_to_b(cluster)
    ask = asyncio.create_task(fleet.ask(id, Act(what="note")))
    await asyncio.sleep(0.1)
    assert id not in cluster.hosts["a"].active
    await roster.refresh()
    assert await ask == 1 and set(cluster.hosts["b"].active) == {id}
    await links.aclose()


async def test_a_host_that_its_neighbour_takes_for_alive_is_replaced_at_once(cluster: Cluster) -> None:
    """The caller knows better: its socket broke."""
    links, roster, fleet, id = await moved_to_b(cluster)
    await roster.refresh()
    await cluster._listeners["b"].aclose()
    cluster._listeners["b"]._server = None
    async with asyncio.timeout(AT_ONCE_S):
        assert await fleet.ask(id, Act(what="note")) == 1
    assert id in cluster.hosts["a"].active
    await links.aclose()


async def test_a_stream_is_sent_on_to_the_actors_home(cluster: Cluster) -> None:
    links, roster, fleet, id = await moved_to_b(cluster)
    roster._members["host"] = list(cluster.members.values())
    async with asyncio.timeout(AT_ONCE_S), aclosing(fleet.stream(id, Act(what="note"))) as items:
        assert [item async for item in items] == [1]
    assert set(cluster.hosts["b"].active) == {id} and not cluster.hosts["a"].active
    await links.aclose()


# -- nothing without a bound


async def test_a_slow_reader_of_a_stream_costs_its_bound_and_no_more() -> None:
    stream = Stream(parts_max=2)
    for n in range(10):
        stream.part(n)
    stream.answer("end")
    assert stream._parts.qsize() == 3  # two parts and why there are no more


def traceback_length(error: BaseException) -> int:
    length, at = 0, error.__traceback__
    while at is not None:
        length, at = length + 1, at.tb_next
    return length


async def test_refusals_hold_on_to_nothing(cluster: Cluster) -> None:
    """An error that is raised twice would keep the frames of both."""
    host = await cluster.add("a")
    await probe(cluster).ask(See())
    at = host.active[probe(cluster).id]
    at.lose()
    lengths = []
    for _ in range(20):
        with pytest.raises(Moved) as caught:
            at.deliver(Envelope(See()))
        lengths.append(traceback_length(caught.value))
    assert lengths[0] == lengths[-1]


# -- followers


async def test_a_follower_that_leaves_while_it_is_welcomed_leaves_nothing(cluster: Cluster) -> None:
    host = await cluster.add("a")
    await probe(cluster).ask(Act(what="note"))
    reading, go_on = asyncio.Event(), asyncio.Event()
    read = cluster.journal.store.read

    async def slowly(*args: Any, **named: Any) -> Any:
        reading.set()
        await go_on.wait()
        return await read(*args, **named)

    cluster.journal.store.read = slowly
    follower = Follower(0)
    at = host.follow(probe(cluster).id, follower)
    await reading.wait()
    follower.end(Moved("gone"))
    at.unfollow(follower)
    go_on.set()
    assert await probe(cluster).ask(See()) == ["x"]
    assert at.followers == 0


async def test_a_follower_in_the_same_process_that_leaves_early_leaves_nothing(cluster: Cluster) -> None:
    host = await cluster.add("a")
    await probe(cluster).ask(Act(what="note"))
    cluster.journal.gate.clear()
    note = asyncio.create_task(probe(cluster).ask(Act(what="note")))
    await cluster.until(lambda: cluster.journal.held == 1)
    frames = host.runtime.fleet.follow(probe(cluster).id, 1)
    first = asyncio.ensure_future(anext(frames))
    await cluster.until(lambda: host.active[probe(cluster).id].waiting == 1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await frames.aclose()
    cluster.journal.gate.set()
    assert await note == 2
    await probe(cluster).ask(See())
    assert host.active[probe(cluster).id].followers == 0


async def test_a_frame_that_cannot_be_made_ends_its_follower(cluster: Cluster) -> None:
    host = await cluster.add("a")
    await probe(cluster).ask(Act(what="note"))
    performer(cluster).frames_break = True
    got = Got()
    host.follow(probe(cluster).id, Local(0, 0, got))
    async with asyncio.timeout(2):
        await got.over.wait()
    assert isinstance(got.error, FlotillaError) and got.frames == []
    assert await probe(cluster).ask(See()) == ["x"]


async def test_a_follower_of_an_actor_that_is_behind_is_sent_away(cluster: Cluster) -> None:
    host = await cluster.add("a", housekeeping=False)
    await probe(cluster).ask(Act(what="note"))
    entry = Entry("begun", 1, b'{"type":"begun","text":"rival"}')
    now = cluster.clock.now()
    await cluster.journal.append(Append(actor=probe(cluster).id, expected=1, entries=(entry,), at=now))
    await asyncio.sleep(FRESH_S * 2)
    got = Got()
    host.follow(probe(cluster).id, Local(1, 0, got))
    async with asyncio.timeout(2):
        await got.over.wait()
    assert isinstance(got.error, Moved) and got.frames == []


# -- snapshots


class Busy:
    """Has always something to do."""

    def __init__(self) -> None:
        self.over = False

    def step(self) -> bool:
        return not self.over


async def test_a_snapshot_is_never_ahead_of_the_record(cluster: Cluster) -> None:
    host = await cluster.add("a")
    await probe(cluster).ask(See())
    ahead: list[tuple[int, int]] = []
    keep = cluster.journal.store.keep

    async def watched(actor: Any, snapshot: Snapshot, **named: Any) -> None:
        durable = await cluster.journal.store.read(actor)
        ahead.append((snapshot.seq, len(durable)))
        await keep(actor, snapshot, **named)

    cluster.journal.store.keep = watched
    busy = Busy()
    host.queue.add(busy)
    for _ in range(5):
        await asyncio.gather(*(probe(cluster).ask(Act(what="note")) for _ in range(6)))
    busy.over = True
    assert ahead and all(seq <= durable for seq, durable in ahead)


async def test_a_stream_through_a_fleet_still_comes_in_parts(cluster: Cluster) -> None:
    host = await cluster.add("a")
    clerk = host.runtime.fleet.ref(Clerk, "demo", "c")
    gate: Any = host.runtime.kinds.of("clerk").performer
    gate.gate.set()
    assert [part async for part in clerk.stream(Toil(id="t", parts=2))] == [0, 1, "t done"]


async def test_tells_arrive_in_their_order_though_the_link_opens_meanwhile(cluster: Cluster) -> None:
    host = await cluster.add("a", housekeeping=False)
    clerk = cluster.fleet.ref(Clerk, "demo", "c")
    address = cluster.members["a"].address
    for n in range(3):
        clerk.tell(Note(text=str(n)))
    known = cluster.links.known
    while known(address) is None:
        await asyncio.sleep(0)
    for n in range(3, 6):
        clerk.tell(Note(text=str(n)))
    await cluster.until(lambda: host.runtime.kinds.of("clerk").counts["facts"] == 6)
    assert await clerk.ask(Read()) == [str(n) for n in range(6)]
