"""Stores that go and come back, and bugs: nothing acknowledged is lost, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from flotilla.core import signals
from flotilla.core.errors import FlotillaError
from flotilla.core.facts import MessageAccepted, SessionOpened
from flotilla.core.generation import Generated, Piece, Prompt
from flotilla.core.ids import ActorId
from flotilla.core.journal import Append
from tests.actors.cluster import CODEC, FAST, REPLY, Cluster, complete, durable, join, text_of
from tests.actors.kinds import Clerk, Reach, Read

pytestmark = pytest.mark.timeout(10)


async def test_a_hot_log_that_is_down_hides_deltas_and_loses_no_text(cluster: Cluster) -> None:
    await cluster.add("a")
    actor = await cluster.open("s_1")
    reading = asyncio.create_task(cluster.read(actor))
    await cluster.post(actor, "c-1")
    await cluster.until(lambda: bool(cluster.hot_log.store._texts))
    cluster.hot_log.down = True
    events = await reading
    assert text_of(events) == REPLY and REPLY.startswith(join(events))


async def test_a_hot_log_that_comes_back_shows_what_was_hidden(cluster: Cluster) -> None:
    await cluster.add("a")
    actor = await cluster.open("s_1")
    cluster.hot_log.down = True
    reading = asyncio.create_task(cluster.read(actor))
    await cluster.post(actor, "c-1")
    calls = cluster.hot_log.calls
    await cluster.until(lambda: cluster.hot_log.calls > calls + 3)
    cluster.hot_log.down = False
    events = await reading
    assert join(events) == text_of(events) == REPLY


async def test_a_journal_that_is_down_for_a_while_loses_nothing_acknowledged(cluster: Cluster) -> None:
    await cluster.add("a")
    actor = await cluster.open("s_1")
    reading = asyncio.create_task(cluster.read(actor, ends=3))
    await cluster.post(actor, "c-1")
    posts = []
    for id in ("c-2", "c-3"):
        cluster.journal.down = True
        posts.append(asyncio.create_task(cluster.post(actor, id)))
        await asyncio.sleep(0.03)
        cluster.journal.down = False
        await posts[-1]
    await complete(cluster, actor, await reading, ends=3)


async def test_a_follower_whose_catching_up_fails_is_told_and_comes_again(cluster: Cluster) -> None:
    await cluster.add("a")
    actor = await cluster.open("s_1")
    await cluster.post(actor, "c-1", "Hello")
    await cluster.read(actor)
    cluster.journal.down_for = {"read"}
    reading = asyncio.create_task(cluster.read(actor))
    await asyncio.sleep(0.03)
    cluster.journal.down_for = set()
    assert durable(await reading) == [1, 2, 3, 4]


# -- bugs elsewhere


class Broken:
    name = "broken"

    def __init__(self, ends: bool) -> None:
        self.ends = ends

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        yield Piece(text="The Silver")
        if not self.ends:
            raise ValueError("a bug")


@pytest.mark.parametrize("ends", [False, True], ids=["raises", "ends without Finished"])
async def test_a_model_with_a_bug_fails_the_turn_and_not_the_session(ends: bool) -> None:
    cluster = Cluster(model=Broken(ends))
    await cluster.add("a")
    actor = await cluster.open("s_1")
    try:
        await cluster.post(actor, "c-1")
        assert (await cluster.read(actor))[-1]["type"] in ("reply.failed", "reply.completed")
    finally:
        await cluster.aclose()


async def test_nothing_is_acknowledged_that_a_bug_kept_from_the_record(cluster: Cluster) -> None:
    """Deciding breaks half-way (here: the agent is gone since a new release), so memory runs ahead."""
    await cluster.add("a")
    actor = ActorId("demo", "session", "s_1")
    opened = CODEC.entry(SessionOpened(agent="gone"))
    await cluster.journal.append(Append(actor=actor, expected=0, entries=(opened,), at=cluster.clock.now()))
    accepted = None
    for _ in range(2):
        try:
            accepted = await asyncio.wait_for(cluster.post(actor, "c-1"), 0.3)
        except (TimeoutError, FlotillaError):
            continue
    recorded = [f for f in await cluster.facts(actor) if isinstance(f, MessageAccepted)]
    assert accepted is None or recorded


async def test_a_hundred_conversations_at_once() -> None:
    cluster = Cluster(script=FAST)
    await cluster.add("a")
    await cluster.add("b")
    try:
        actors = [await cluster.open(f"s_{n}") for n in range(100)]
        await asyncio.gather(*(cluster.post(actor, "c-1") for actor in actors))
        for events in await asyncio.gather(*(cluster.read(actor) for actor in actors)):
            assert text_of(events) == REPLY and durable(events) == [1, 2, 3, 4]
    finally:
        await cluster.aclose()


async def test_a_stop_while_the_hot_log_is_down_is_refused_and_the_conversation_goes_on(
    cluster: Cluster,
) -> None:
    """Nobody can tell then that no other host shows more: so nothing is recorded about it."""
    await cluster.add("a")
    actor = await cluster.open("s_1")
    reading = asyncio.create_task(cluster.read(actor, ends=1))
    await cluster.post(actor, "c-1")
    await cluster.until(lambda: bool(cluster.hot_log.store._texts))
    cluster.hot_log.down = True
    with pytest.raises(FlotillaError) as refused:
        await cluster.fleet.ask(actor, signals.Interrupt())
    assert refused.value.status == 503 and refused.value.retry_after_s
    view = await cluster.fleet.ask(actor, signals.Describe())
    assert view.state == "replying"
    cluster.hot_log.down = False
    events = await reading
    assert text_of(events) == REPLY and REPLY.startswith(join(events))


async def test_an_actor_reaches_no_other_tenant(cluster: Cluster) -> None:
    await cluster.add("a")
    first = cluster.fleet.ref(Clerk, "demo", "first")
    theirs = cluster.fleet.ref(Clerk, "other", "second")
    assert (await first.ask(Reach(to=theirs.id))).endswith("/forbidden")
    assert await theirs.ask(Read()) == []
