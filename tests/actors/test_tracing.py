"""A trace follows a turn from actor to actor, and costs nothing where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from actors.runtime import Resident
from benchmarks import cluster as benches
from flotilla.core.calls import Call
from flotilla.core.effects import Message
from flotilla.core.errors import Poisoned, Refused
from flotilla.core.ids import ActorId
from flotilla.core.tracing import Span
from tests.actors import kinds
from tests.actors.kinds import Burst, Note, Pass, Read, Relay, Toil

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = Call(trace=f"00-{TRACE}-{CALLER}-01")


class Spans:
    """Keeps them (`flotilla.core.tracing.Tracer`)."""

    def __init__(self) -> None:
        self.written: list[Span] = []

    def write(self, span: Span) -> None:
        self.written.append(span)

    def close(self) -> None:
        pass

    def named(self, name: str) -> list[Span]:
        return [span for span in self.written if span.name == name]

    def one(self, name: str) -> Span:
        (span,) = self.named(name)
        return span


class Cluster(benches.Cluster):
    def __init__(self) -> None:
        self.performer = kinds.ClerkPerformer()
        super().__init__(lambda _: [Resident(kinds.Clerk, self.performer)])
        self.spans = Spans()

    async def up(self, *, traced: bool = True) -> Cluster:
        for name in ("h1", "h2"):
            host = await self.add(name)
            host.runtime.tracer = self.spans if traced else None
        return self

    async def ask(self, name: str, message: Message, call: Call = TRACED) -> object:
        return await self.fleet.ask(clerk(name), message, call=call)

    async def written(self, name: str, count: int = 1) -> None:
        """A span is written after the answer is given."""
        async with asyncio.timeout(4):
            while len(self.spans.named(name)) < count:
                await asyncio.sleep(0.001)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = await Cluster().up()
    yield made
    await made.aclose()


def clerk(name: str) -> ActorId:
    return ActorId("demo", "clerk", name)


async def test_a_message_and_what_it_records_are_spans(cluster: Cluster) -> None:
    await cluster.ask("c", Note(text="secret words"))
    await cluster.written("Note")
    note, record = cluster.spans.one("Note"), cluster.spans.one("record")
    assert (note.trace, note.parent, note.outcome) == (TRACE, CALLER, "ok")
    assert (record.trace, record.parent) == (TRACE, note.id)
    assert note.about["actor"] == "demo/clerk/c" and note.about["host"] in ("h1", "h2")
    assert note.took_ms >= record.took_ms > 0 and float(note.about["waited_ms"]) >= 0
    assert record.about | {"host": ""} == {"actor": "demo/clerk/c", "host": "", "on": "Note", "facts": 1}
    assert b"secret" not in msgspec.json.encode(cluster.spans.written)


async def test_an_ask_leads_to_the_other_actor_and_its_own_asks(cluster: Cluster) -> None:
    assert await cluster.ask("a", Relay(path=("b", "c"), id="r")) == "c"
    await cluster.written("ask", 2)
    by_actor = {str(span.about["actor"])[-1]: span for span in cluster.spans.named("Relay")}
    asks = {str(span.about["actor"])[-1]: span for span in cluster.spans.named("ask")}
    assert by_actor["a"].parent == CALLER
    assert asks["a"].parent == by_actor["a"].id and by_actor["b"].parent == asks["a"].id
    assert asks["b"].parent == by_actor["b"].id and by_actor["c"].parent == asks["b"].id
    assert asks["a"].about["to"] == "demo/clerk/b" and asks["a"].took_ms >= asks["b"].took_ms
    assert {span.trace for span in cluster.spans.written} == {TRACE}


async def test_a_tell_leads_to_the_other_actor(cluster: Cluster) -> None:
    await cluster.ask("a", Pass(to="b", text="x"))
    await cluster.written("Note")
    await cluster.written("Pass")
    assert cluster.spans.one("Note").parent == cluster.spans.one("Pass").id


async def test_work_is_a_span_until_it_ends(cluster: Cluster) -> None:
    toiling = asyncio.ensure_future(cluster.ask("a", Toil(id="t")))
    await cluster.written("Toil")
    assert not cluster.spans.named("work Toiling")
    cluster.performer.gate.set()
    assert await toiling == "t done"
    await cluster.written("work Toiling")
    work = cluster.spans.one("work Toiling")
    assert work.parent == cluster.spans.one("Toil").id and work.outcome == "ok"
    assert cluster.performer.calls[0].trace.split("-")[1] == TRACE


async def test_a_span_says_how_it_ended(cluster: Cluster) -> None:
    with pytest.raises(Refused):
        await cluster.ask("a", Note(text="refuse"))
    assert cluster.spans.one("Note").outcome == "refused"
    with pytest.raises(Poisoned):
        await cluster.ask("a", Burst())
    await cluster.written("Burst", 3)
    tries = cluster.spans.named("Burst")
    assert [(span.outcome, span.about["tries"], span.parent) for span in tries] == [
        ("ZeroDivisionError", n, CALLER) for n in range(3)
    ]


async def test_without_a_trace_there_are_no_spans(cluster: Cluster) -> None:
    await cluster.ask("a", Note(), Call())
    assert await cluster.ask("a", Read(), Call()) == [""]
    assert not cluster.spans.written


async def test_a_host_without_a_tracer_hands_the_trace_on() -> None:
    cluster = await Cluster().up(traced=False)
    try:
        for host in cluster.hosts.values():
            host.runtime.tracer = cluster.spans if cluster.fleet.home(clerk("b")) == host.name else None
        names = (f"a{n}" for n in range(100))
        first = next(
            name for name in names if cluster.fleet.home(clerk(name)) != cluster.fleet.home(clerk("b"))
        )
        assert await cluster.ask(first, Relay(path=("b",), id="r")) == "b"
        await cluster.written("Relay")
        relay = cluster.spans.one("Relay")
        assert (relay.trace, relay.parent) == (TRACE, CALLER)
    finally:
        await cluster.aclose()
