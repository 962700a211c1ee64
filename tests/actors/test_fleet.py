"""Real hosts, links and followers in one process: what customers see, whatever breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from actors.link import Listener
from flotilla.core import signals
from flotilla.core.calls import Call
from flotilla.core.errors import FlotillaError, NotFound
from flotilla.core.facts import MessageAccepted, ReplyCompleted
from flotilla.core.ids import ActorId
from tests.actors.cluster import REPLY, TOKEN, Cluster, complete, durable, join, text_of

pytestmark = pytest.mark.timeout(10)


# -- a turn


async def test_a_turn_end_to_end(cluster: Cluster) -> None:
    await cluster.add("a")
    actor = await cluster.open("s_1")
    reading = asyncio.create_task(cluster.read(actor))
    accepted = await cluster.post(actor, "c-1")
    events = await reading
    assert accepted == signals.Accepted(seq=2, turn=events[1]["turn"])
    kinds = list(dict.fromkeys(event["type"] for event in events))
    assert kinds == ["session.opened", "message.accepted", "reply.started", "reply.delta", "reply.completed"]
    assert join(events) == text_of(events) == REPLY
    assert sum(e["type"] == "reply.delta" for e in events) > 3
    await complete(cluster, actor, events)


async def test_timing_adds_up(cluster: Cluster) -> None:
    await cluster.add("a")
    actor = await cluster.open("s_1")
    await cluster.post(actor, "c-1")
    t = (await cluster.read(actor))[-1]["data"]["timing"]
    parts = ("queued", "retrieval", "prompt", "first_token", "generation")
    assert all(t[name] >= 0 for name in parts) and sum(t[name] for name in parts) <= t["total"] * 1.01 + 1
    assert t["overhead"] == pytest.approx(
        t["total"] - t["retrieval"] - t["first_token"] - t["generation"], abs=0.05
    )


async def test_an_interrupt_reaches_a_reply_and_keeps_what_was_seen(cluster: Cluster) -> None:
    await cluster.add("a")
    actor = await cluster.open("s_1")
    reading = asyncio.create_task(cluster.read(actor))
    await cluster.post(actor, "c-1")
    await cluster.until(lambda: bool(cluster.hot_log.store._texts))
    await cluster.fleet.ask(actor, signals.Interrupt())
    events = await reading
    assert events[-1]["type"] == "reply.interrupted"
    assert join(events) == text_of(events) != REPLY


async def test_an_unopened_session_is_not_found(cluster: Cluster) -> None:
    await cluster.add("a")
    with pytest.raises(NotFound):
        await cluster.post(ActorId("demo", "session", "s_x"), "c-1")


async def test_another_tenant_does_not_see_a_session(cluster: Cluster) -> None:
    await cluster.add("a")
    actor = await cluster.open("s_1")
    with pytest.raises(NotFound):
        await cluster.fleet.ask(ActorId("other", "session", actor.name), signals.Describe())


# -- resuming


async def test_who_resumes_at_any_seq_gets_exactly_the_rest(cluster: Cluster) -> None:
    await cluster.add("a")
    actor = await cluster.open("s_1")
    for id in ("c-1", "c-2"):
        await cluster.post(actor, id)
    whole = durable(await cluster.read(actor, ends=2))
    for after in range(len(whole)):
        ends = 2 if after < 5 and after < whole[-2] else 1
        events = await cluster.read(actor, after, ends=ends)
        assert durable(events)[0] == after + 1
    await complete(cluster, actor, await cluster.read(actor, ends=2), ends=2)


@pytest.mark.parametrize("cut", [0, 1, 5, 20, 48])
async def test_who_resumes_in_the_middle_of_a_reply_gets_the_text_from_there(
    cluster: Cluster, cut: int
) -> None:
    await cluster.add("a")
    actor = await cluster.open("s_1")
    await cluster.post(actor, "c-1")
    shown = cluster.hot_log.store._texts
    await cluster.until(lambda: any(len(text.decode()) >= max(cut, 1) for text in shown.values()))
    events = await cluster.read(actor, 3, cut)
    assert join(events, REPLY[:cut]) == text_of(events) == REPLY
    assert durable(events) == [4]


async def test_the_id_of_the_last_event_resumes_without_an_overlap(cluster: Cluster) -> None:
    """What a browser does by itself: it sends the `id:` of the last event that it has got."""
    await cluster.add("a")
    actor = await cluster.open("s_1")
    await cluster.post(actor, "c-1")
    said = ""
    async for frame in cluster.fleet.follow(actor, 0):
        if frame.offset is not None:
            said += json.loads(frame.json)["data"]["text"]
            break
    seq, _, offset = frame.id.partition(":")
    events = await cluster.read(actor, int(seq), int(offset))
    assert join(events, said) == REPLY


async def test_the_id_of_a_delta_does_not_repeat_what_came_before_it(cluster: Cluster) -> None:
    """A second message is accepted during the reply; then the reader resumes at a later delta."""
    await cluster.add("a")
    actor = await cluster.open("s_1")
    await cluster.post(actor, "c-1")
    got: list[int] = []
    async for frame in cluster.fleet.follow(actor, 0):
        if frame.offset is None:
            got.append(frame.seq)
        elif 4 in got:
            break
        elif len(got) == 3:
            await cluster.post(actor, "c-2")
    seq, _, offset = frame.id.partition(":")
    events = await cluster.read(actor, int(seq), int(offset), ends=2)
    assert got + durable(events) == list(range(1, 8))


async def test_a_long_history_is_followed_from_its_beginning_to_its_end(cluster: Cluster) -> None:
    """A client that reads as fast as it can is never 'behind'."""
    await cluster.add("a")
    actor = await cluster.open("s_1")
    link = await cluster.links.to(cluster.members["a"].address)
    assert not link.lost
    for n in range(701):
        await cluster.post(actor, f"c-{n}", "Hello")
    events = await cluster.read(actor, ends=701)
    assert durable(events) == list(range(1, 1 + 1 + 3 * 701))


# -- hosts that die


@pytest.mark.parametrize("watched", [True, False])
async def test_a_host_killed_in_the_middle_of_a_reply_costs_no_word(cluster: Cluster, watched: bool) -> None:
    await cluster.add("a")
    actor = await cluster.open("s_1")
    reading = asyncio.create_task(cluster.read(actor)) if watched else None
    await cluster.post(actor, "c-1")
    shown = cluster.hot_log.store._texts
    await cluster.until(lambda: any(len(text) > 10 for text in shown.values()))
    await cluster.kill("a")
    await cluster.add("b")
    events = await (reading or cluster.read(actor))
    assert text_of(events) == REPLY and cluster.fleet.rewound == 0
    assert not watched or join(events) == REPLY
    await complete(cluster, actor, events)


async def test_hosts_killed_again_and_again_answer_every_message_once(cluster: Cluster) -> None:
    await cluster.add("h-0")
    actor = await cluster.open("s_1")
    reading = asyncio.create_task(cluster.read(actor, ends=6))
    for n in range(6):
        await cluster.post(actor, f"c-{n}")
        await cluster.add(f"h-{n + 1}")
        await cluster.kill(f"h-{n}")
        assert (await cluster.post(actor, f"c-{n}")).again
    events = await reading
    await complete(cluster, actor, events, ends=6)
    for turn in {event["turn"] for event in events if "turn" in event}:
        mine = [event for event in events if event.get("turn") == turn]
        assert join(mine) == text_of(mine) == REPLY


async def test_a_follower_leaves_a_host_that_is_silent_and_out_of_the_fleet(cluster: Cluster) -> None:
    """A machine that loses power closes no socket."""

    async def frozen(method: str, body: bytes) -> AsyncGenerator[bytes]:
        await asyncio.Event().wait()
        yield b""

    host = await cluster.add("b")
    actor = await cluster.open("s_1")
    await cluster.directory.leave(cluster.members["b"])
    listener = Listener(frozen, TOKEN)
    await cluster.enlist("a", await listener.start())
    reading = asyncio.create_task(cluster.read(actor))
    await asyncio.sleep(0.05)
    await cluster.directory.leave(cluster.members["a"])
    await cluster.directory.beat(cluster.members["b"])
    await cluster.roster.refresh()
    await cluster.post(actor, "c-1")
    try:
        assert text_of(await reading) == REPLY
    finally:
        await listener.aclose()
    assert host


# -- split brain


async def test_a_session_on_two_hosts_at_once_answers_each_message_once(cluster: Cluster) -> None:
    a, b = await cluster.add("a", housekeeping=False), await cluster.add("b", housekeeping=False)
    actor = await cluster.open("s_1")
    asks = []
    for n in range(12):
        host = (a, b)[n % 2]
        asks.append(asyncio.create_task(insist(host, actor, f"c-{n // 2}")))
        if n % 3 == 0:
            await asyncio.sleep(0.004)
    accepted = await asyncio.gather(*asks)
    for _ in range(4000):
        facts = await cluster.facts(actor)
        if sum(isinstance(f, ReplyCompleted) for f in facts) == 6:
            break
        for host in (a, b):
            for id in await cluster.journal.unfinished():
                host.activate(id)
        await asyncio.sleep(0.001)
    turns = [f.turn for f in facts if isinstance(f, MessageAccepted)]
    assert {one.turn for one in accepted} == set(turns) and len(turns) == 6
    assert [f.turn for f in facts if isinstance(f, ReplyCompleted)] == turns
    assert all(f.text == REPLY for f in facts if isinstance(f, ReplyCompleted))


async def insist(host, actor: ActorId, id: str) -> signals.Accepted:
    """As the fleet does: asks again where the answer is not known."""
    while True:
        try:
            return await host.ask(actor, signals.Post(id=id, text="What does it cost?"), Call())
        except FlotillaError:
            await asyncio.sleep(0.001)
