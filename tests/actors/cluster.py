"""Hosts, listeners and a fleet in one process, on memory stores and a scripted model, with faults to inject."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import structlog

from actors.fleet import Fleet
from actors.host import Host
from actors.link import Links, Listener
from actors.roster import Roster
from actors.work import Work
from flotilla.core import signals
from flotilla.core.clock import SystemClock
from flotilla.core.errors import Unavailable
from flotilla.core.facts import MessageAccepted, ReplyCompleted
from flotilla.core.ids import ActorId
from flotilla.core.knowledge import Hit
from flotilla.core.limits import Limits
from flotilla.core.members import Member
from flotilla.stores.memory import MemoryDirectory, MemoryHotLog, MemoryJournal
from flotilla.views.events import TURN_ENDS, Frame
from models.scripted import ScriptedModel, ScriptSettings
from tests.build import hit

TOKEN = "t"
LOG = structlog.wrap_logger(logging.getLogger("tests"))
REPLY = "The Silver card has an annual fee of $1,000.50. Naïve 日本語 👩‍👩‍👧 words follow here, one by one."
SLOW = ScriptSettings(mode="replies", replies=(REPLY,), first_token_s=0.001, token_s=0.003, tick_s=0.001)
FAST = ScriptSettings(mode="replies", replies=(REPLY,), first_token_s=0.0, token_s=0.0)


class Switch:
    """A store that can be out of order: any of its calls raises `Unavailable` while `down`."""

    def __init__(self, store: Any) -> None:
        self.store, self.down, self.calls = store, False, 0
        self.down_for: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **named: Any) -> Any:
            self.calls += 1
            await asyncio.sleep(0)  # a real store lets others run
            if self.down or name in self.down_for:
                raise Unavailable("The store is down.", retry_after_s=0.1)
            return await getattr(self.store, name)(*args, **named)

        return call


class Shelf:
    """Knowledge with one answer to everything."""

    def __init__(self, hits: Sequence[Hit] = (hit(),)) -> None:
        self.hits = tuple(hits)

    async def search(self, *_: Any, **__: Any) -> tuple[Hit, ...]:
        return self.hits


class Cluster:
    def __init__(self, model: Any = None, script: ScriptSettings = SLOW) -> None:
        self.clock = SystemClock()
        self.journal, self.hot_log = Switch(MemoryJournal()), Switch(MemoryHotLog())
        self.directory = MemoryDirectory()
        self.model = model or ScriptedModel(script)
        self.hosts: dict[str, Host] = {}
        self.listeners: dict[str, Listener] = {}
        self.members: dict[str, Member] = {}
        self.tasks: list[asyncio.Task[Any]] = []
        self.links = Links(TOKEN)
        self.roster = Roster(self.directory, self.clock, LOG, "host")
        self.fleet = Fleet(self.links, self.roster, self.clock)

    async def add(self, name: str, housekeeping: bool = True) -> Host:
        work = Work(
            journal=self.journal,  # type: ignore[arg-type]
            hot_log=self.hot_log,  # type: ignore[arg-type]
            knowledge=Shelf(),  # type: ignore[arg-type]
            model=self.model,
            clock=self.clock,
            log=LOG,
            limits=Limits(recover_every_s=0.02),
        )
        host = self.hosts[name] = Host(work)
        listener = self.listeners[name] = Listener(host.answer, TOKEN)
        await self.enlist(name, await listener.start())
        if housekeeping:
            run = host.run(self.members[name], lambda: self.roster.members("host"))
            self.tasks.append(asyncio.create_task(run))
        return host

    async def enlist(self, name: str, address: str) -> None:
        member = self.members[name] = Member(role="host", name=name, life=f"l-{name}", address=address)
        await self.directory.beat(member)
        await self.roster.refresh()

    async def kill(self, name: str) -> None:
        """Its sockets break, its actors are gone without a word to anybody."""
        host = self.hosts.pop(name)
        await self.listeners.pop(name).aclose()
        for actor in list(host._actors.values()):
            actor.lost = True
            for task in (*actor._tasks.values(), actor._runner):
                if task is not None:
                    task.cancel()
        host._actors.clear()
        await self.directory.leave(self.members.pop(name))
        await self.roster.refresh()

    async def aclose(self) -> None:
        for task in self.tasks:
            task.cancel()
        for name in list(self.hosts):
            await self.kill(name)
        await self.links.aclose()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def open(self, name: str) -> ActorId:
        actor = ActorId("demo", "session", name)
        await self.fleet.open(actor, signals.Open(agent="bank"))
        return actor

    async def post(self, actor: ActorId, id: str, text: str = "What does it cost?") -> signals.Accepted:
        return await self.fleet.post(actor, signals.Post(id=id, text=text))

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
        return [recorded.fact for recorded in await self.journal.store.read(actor)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(4):
            while not condition():  # noqa: ASYNC110
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
