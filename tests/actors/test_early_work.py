"""Work that is started while the facts in front of it are written (docs/decisions/0026)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from actors import performing, recording
from actors.mailbox import Envelope
from actors.performing import perform_all
from flotilla.core.calls import Call
from flotilla.core.effects import Answer, Effect, Record, Signal, Stop, Work
from flotilla.core.errors import Unavailable
from flotilla.core.ids import ActorId


class Found(Signal, frozen=True, kw_only=True, tag="found"):
    what: str


class Look(Work, frozen=True, kw_only=True):
    early = True

    what: str

    @property
    def key(self) -> str:
        return self.what


class Later(Look, frozen=True, kw_only=True):
    early = False


class World:
    """An activation as `performing` sees it, with a journal that writes when it is let."""

    def __init__(self) -> None:
        self.id = ActorId("t", "k", "a")
        self.lost = False
        self.tasks: dict[str, asyncio.Task[None]] | None = None
        self.began: list[str] = []
        self.calls: list[Call] = []
        self.heard: list[tuple[Signal, Call | None, float | None]] = []
        self.written = asyncio.Event()
        self.resident = SimpleNamespace(performer=self)
        self.host = SimpleNamespace(
            runtime=SimpleNamespace(
                clock=SimpleNamespace(monotonic=lambda: 100.0),
                tracer=None,
                log=SimpleNamespace(exception=print),
            )
        )

    async def work(self, at: Any, effect: Look, call: Call) -> AsyncGenerator[Signal]:
        self.began.append(effect.what)
        self.calls.append(call)
        yield Found(what=effect.what)

    def hear(self, signal: Signal, call: Call | None = None, deadline: float | None = None) -> None:
        self.heard.append((signal, call, deadline))

    def perform(self, *effects: Effect) -> asyncio.Task[None]:
        call = Call(left_s=5.0, chain=("t/k/asker",), trace="")
        return asyncio.create_task(perform_all(self, effects, Envelope(Found(what=""), None, call, 105.0)))  # type: ignore[arg-type]

    def take_tickets(self, key: str) -> list[Any]:
        return []

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    one = World()

    async def record(*_: Any) -> None:
        await one.written.wait()

    monkeypatch.setattr(recording, "record", record)
    monkeypatch.setattr(recording, "snapshot_soon", _nothing)
    assert performing.recording is recording
    return one


def _nothing(_: Any) -> None:
    return None


RECORD = Record(facts=(), unfinished=True)


async def test_what_is_behind_the_answer_has_neither_its_deadline_nor_its_chain(world: World) -> None:
    """Though it begins before the answer, for which the record is waited: it is not done for the asker."""
    doing = world.perform(RECORD, Answer(value=None), Look(what="it"))
    await world.settle()
    assert world.began == ["it"] and not doing.done()
    assert world.calls[0].left_s is None and world.calls[0].chain == ("t/k/a",)
    ((_, call, deadline),) = world.heard
    assert deadline is None and call is not None and call.left_s is None and not call.chain
    world.written.set()
    await doing


async def test_what_an_answer_waits_for_keeps_its_deadline(world: World) -> None:
    doing = world.perform(RECORD, Look(what="it"), Answer(value=None, key="other"))
    await world.settle()
    assert world.calls[0].left_s == 5.0 and world.calls[0].chain == ("t/k/asker", "t/k/a")
    world.written.set()
    await doing


async def test_the_same_work_behind_a_stop_is_done_again(world: World) -> None:
    doing = world.perform(RECORD, Look(what="it"), Stop(key="it"), Look(what="it"))
    await world.settle()
    assert world.began == ["it"]
    world.written.set()
    await doing
    await world.settle()
    assert world.began == ["it", "it"]


async def test_nothing_overtakes_what_must_come_in_its_order(world: World) -> None:
    doing = world.perform(RECORD, Look(what="1"), Later(what="2"), Look(what="3"), RECORD, Look(what="4"))
    await world.settle()
    assert world.began == ["1"]
    world.written.set()
    await doing
    await world.settle()
    assert world.began == ["1", "2", "3", "4"]


async def test_a_record_that_fails_leaves_the_rest_undone(world: World, monkeypatch: Any) -> None:
    async def fails(*_: Any) -> None:
        await world.written.wait()
        raise Unavailable("Down.")

    monkeypatch.setattr(recording, "record", fails)
    doing = world.perform(RECORD, Look(what="1"), Later(what="2"))
    await world.settle()
    world.written.set()
    with pytest.raises(Unavailable):
        await doing
    assert world.began == ["1"]


async def test_the_record_leaves_first(world: World, monkeypatch: Any) -> None:
    """With all that were asked for in the same turn of the loop, and only then the works begin."""
    order: list[str] = []

    async def record(*_: Any) -> None:
        for step in ("asked for", "sent"):
            order.append(step)
            await asyncio.sleep(0)
        await world.written.wait()

    monkeypatch.setattr(recording, "record", record)
    monkeypatch.setattr(world, "began", order)
    doing = world.perform(RECORD, Look(what="work"))
    await world.settle()
    assert order == ["asked for", "sent", "work"]
    world.written.set()
    await doing


async def test_a_record_that_is_there_at_once_is_followed_by_its_works_in_order(world: World) -> None:
    world.written.set()
    await world.perform(RECORD, Look(what="1"), Later(what="2"))
    await world.settle()
    assert world.began == ["1", "2"]


async def test_a_record_that_fails_at_once_begins_nothing(world: World, monkeypatch: Any) -> None:
    async def fails(*_: Any) -> None:
        raise Unavailable("Full.")

    monkeypatch.setattr(recording, "record", fails)
    with pytest.raises(Unavailable):
        await world.perform(RECORD, Look(what="1"))
    await world.settle()
    assert world.began == [] and world.tasks is None


async def test_an_actor_that_is_lost_meanwhile_begins_nothing(world: World) -> None:
    doing = world.perform(RECORD, Look(what="1"))
    await asyncio.sleep(0)
    world.lost = True
    world.written.set()
    await doing
    await world.settle()
    assert world.began == []
