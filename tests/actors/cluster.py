"""Hosts, listeners and a fleet in one process, on memory stores and a scripted model, with faults to inject."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from actors.doorways import Doorways
from actors.fleet import Fleet
from actors.residents import session as session_residents
from actors.runtime import Resident
from actors.serving.single import OneModel
from benchmarks import cluster
from benchmarks.cluster import LOG, TOKEN
from flotilla.core import signals
from flotilla.core.errors import Unavailable
from flotilla.core.facts import MessageAccepted, ReplyCompleted
from flotilla.core.ids import ActorId
from flotilla.core.knowledge import Hit
from flotilla.core.ledger import Codec
from flotilla.core.session import Session
from flotilla.stores.memory import MemoryHotLog, MemoryJournal
from flotilla.views.events import TURN_ENDS, Frame
from models.scripted import ScriptedModel, ScriptSettings
from tests.actors import kinds
from tests.build import hit

__all__ = ["LOG", "TOKEN", "Cluster"]
CODEC = Codec(Session)

REPLY = "The Silver card has an annual fee of $1,000.50. Naïve 日本語 👩‍👩‍👧 words follow here, one by one."
SLOW = ScriptSettings(mode="replies", replies=(REPLY,), first_token_s=0.001, token_s=0.003, tick_s=0.001)
FAST = ScriptSettings(mode="replies", replies=(REPLY,), first_token_s=0.0, token_s=0.0)


class Switch:
    """A store that can be out of order: any of its calls raises `Unavailable` while `down`."""

    def __init__(self, store: Any) -> None:
        self.store, self.down, self.calls = store, False, 0
        self.down_for: set[str] = set()
        self.gate = asyncio.Event()  # closed, nothing is appended
        self.gate.set()
        self.held = 0

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **named: Any) -> Any:
            self.calls += 1
            await asyncio.sleep(0)  # a real store lets others run
            if self.down or name in self.down_for:
                raise Unavailable("The store is down.", retry_after_s=0.1)
            if name == "append":
                self.held += 1
                await self.gate.wait()
                self.held -= 1
            return await getattr(self.store, name)(*args, **named)

        return call


class Shelf:
    """Knowledge with one answer to everything."""

    def __init__(self, hits: Sequence[Hit] = (hit(),)) -> None:
        self.hits = tuple(hits)

    async def search(self, *_: Any, **__: Any) -> tuple[Hit, ...]:
        return self.hits


class Cluster(cluster.Cluster):
    """The session at home, and the kinds of tests/actors/kinds.py."""

    def __init__(self, model: Any = None, script: ScriptSettings = SLOW) -> None:
        self.hot_log = Switch(MemoryHotLog())
        self.model = model or ScriptedModel(script)
        super().__init__(Cluster._kinds, journal=Switch(MemoryJournal()))

    def _kinds(self) -> Sequence[Resident]:
        doors = Doorways(
            knowledge=Shelf(),  # type: ignore[arg-type]
            model=self.model if hasattr(self.model, "choose") else OneModel(self.model),
            hot_log=self.hot_log,  # type: ignore[arg-type]
            letters=self.letters,
            clock=self.clock,
            log=LOG,
        )
        return [*session_residents.residents(doors), *kinds.residents()]

    async def open(self, name: str) -> ActorId:
        actor = ActorId("demo", "session", name)
        await self.fleet.ask(actor, signals.Open(agent="bank"))
        return actor

    async def post(self, actor: ActorId, id: str, text: str = "What does it cost?") -> signals.Accepted:
        return await self.fleet.ask(actor, signals.Post(id=id, text=text))

    async def read(
        self,
        actor: ActorId,
        after: int = 0,
        offset: int = 0,
        ends: int = 1,
        fleet: Fleet | None = None,
    ) -> list[dict[str, Any]]:
        """Events until so many turns have ended."""
        return [json.loads(f.json) for f in await self.frames(actor, after, offset, ends, fleet)]

    async def frames(
        self,
        actor: ActorId,
        after: int = 0,
        offset: int = 0,
        ends: int = 1,
        fleet: Fleet | None = None,
    ) -> list[Frame]:
        got: list[Frame] = []
        async with asyncio.timeout(4), aclosing((fleet or self.fleet).follow(actor, after, offset)) as frames:
            async for frame in frames:
                got.append(frame)
                ends -= json.loads(frame.json)["type"] in TURN_ENDS
                if ends == 0:
                    break
        return got

    async def facts(self, actor: ActorId) -> list[Any]:
        return [CODEC.recorded(stored).fact for stored in await self.journal.store.read(actor)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(4):
            while not condition():
                await asyncio.sleep(0.001)


def durable(events: list[dict[str, Any]]) -> list[int]:
    return [
        event["seq"] for event in events if not event["type"].startswith(("reply.delta", "reply.rewound"))
    ]


def join(events: list[dict[str, Any]], said: str = "") -> str:
    """The text of the deltas; each must begin where the last one ended."""
    for event in events:
        if event["type"] == "reply.delta":
            assert event["data"]["offset"] == len(said), "a gap or an overlap"
            said += event["data"]["text"]
    return said


def text_of(events: list[dict[str, Any]]) -> str:
    return events[-1]["data"]["text"]


async def complete(cluster: Cluster, actor: ActorId, events: list[dict], ends: int = 1) -> None:
    """Every durable event once and in order, and each accepted message answered once."""
    facts = await cluster.facts(actor)
    assert durable(events) == list(range(1, len(durable(events)) + 1))
    accepted = [f.turn for f in facts if isinstance(f, MessageAccepted)]
    assert [f.turn for f in facts if isinstance(f, ReplyCompleted)] == accepted
    assert len(accepted) == ends
