"""Replicas with real links and scripted engines in one process, and the router that asks them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from actors.link import Links, Listener
from actors.roster import Roster
from actors.serving.replica import Replica
from actors.serving.router import Models
from flotilla.core.clock import SystemClock
from flotilla.core.errors import FlotillaError
from flotilla.core.generation import ChatMessage, Finished, Generated, Origin, Piece, Prompt
from flotilla.core.members import Member, MemberState
from flotilla.core.tallies import Tally
from flotilla.core.versions import Plan, Route, Version
from flotilla.stores.memory_boards import MemoryPlanBoard, MemoryTallyBoard
from models.scripted import ScriptedModel, ScriptSettings
from tests.actors.membership import LOG, TOKEN, Board, member

FOLDER = str(Path(__file__).parent)
"""As good as any for the files of a scripted adapter."""
FAST = ScriptSettings(first_token_s=0.0, token_s=0.0, tick_s=0.001, tokens_median=12, tokens_spread=0.0)


class Later(SystemClock):
    """The machine's clock; a test can move its hands forward."""

    def __init__(self) -> None:
        self.shift_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.shift_s


def version(id: str, **more: Any) -> Version:
    model, _, name = id.partition("@")
    return Version(model=model, name=name, engine="scripted", **more)


def plan(*ids: str | Version, revision: int = 1, **route: Any) -> Plan:
    """Of the first one's model, which the first one answers for."""
    versions = [id if isinstance(id, Version) else version(id) for id in ids]
    return Plan(
        model=versions[0].model,
        revision=revision,
        route=Route(stable=versions[0].id, **route),
        versions={one.id: one for one in versions},
    )


class Running:
    """A replica: what it was asked, and where it stops in the middle of a reply. With `hold_after` it waits
    after so many parts until `go_on` is set; with `broken` it raises that instead of answering."""

    def __init__(self, name: str, serves: Version, settings: ScriptSettings) -> None:
        self.name = name
        self.engine = ScriptedModel(msgspec.structs.replace(settings, name=serves.id))
        self.replica = Replica(self.engine, serves, self._fetch, SystemClock(), LOG)
        self.listener = Listener(self.handle, TOKEN)
        self.address = ""
        self.asked: list[Prompt] = []
        self.methods: list[str] = []
        self.loads = 0
        self.hold_after: int | None = None
        self.go_on = asyncio.Event()
        self.holds = asyncio.Event()
        self.broken: FlotillaError | None = None
        self.extra: dict[str, float] = {}

    async def _fetch(self, source: str, checksum: str) -> str:
        return source

    async def handle(self, method: str, body: bytes) -> AsyncGenerator[bytes]:
        if method == "generate":
            self.asked.append(msgspec.msgpack.decode(body, type=Prompt))
            if self.broken:
                raise self.broken
        self.loads += method == "load_adapter"
        self.methods.append(method)
        count = 0
        if method == "generate" and self.hold_after == 0:
            await self._hold()
        async with aclosing(self.replica.handle(method, body)) as items:
            async for item in items:
                yield item
                count += 1
                if method == "generate" and count == self.hold_after:
                    await self._hold()

    async def _hold(self) -> None:
        self.holds.set()
        await self.go_on.wait()

    def member(self, state: MemberState | None = None) -> Member:
        own, load = self.replica.report()
        return member(
            self.name,
            role="model",
            address=self.address,
            state=state or own,
            info=self.replica.info(),
            load=load | self.extra,
        )


class Rig:
    def __init__(self, default: str = "", seed: int = 1) -> None:
        self.clock = Later()
        self.directory = Board()
        self.plans = MemoryPlanBoard()
        self.tallies = MemoryTallyBoard()
        self.links = Links(TOKEN)
        self.roster = Roster(self.directory, self.clock, LOG, "model")
        self.replicas: dict[str, Running] = {}
        self.models = Models(
            self.links,
            self.roster,
            self.plans,
            self.tallies,
            clock=self.clock,
            log=LOG,
            random=random.Random(seed),
            default=default,
        )

    async def start(
        self, id: str | Version, count: int = 1, settings: ScriptSettings = FAST
    ) -> list[Running]:
        serves = id if isinstance(id, Version) else version(id)
        taken = sum(name.startswith(f"{serves.id}.") for name in self.replicas)
        made = [Running(f"{serves.id}.{taken + n}", serves, settings) for n in range(count)]
        for running in made:
            running.address = await running.listener.start()
            self.replicas[running.name] = running
        await self.look()
        return made

    async def publish(self, *plans: Plan) -> None:
        for one in plans:
            await self.plans.publish(one)
        await self.look()

    async def look(self) -> None:
        """All beat, and the router looks."""
        for running in self.replicas.values():
            await self.directory.beat(running.member())
        await self.roster.refresh()
        await self.models.refresh()

    async def kill(self, running: Running) -> None:
        """Its sockets break; the directory hasn't noticed."""
        await running.listener.aclose()

    async def gone(self, running: Running) -> None:
        """Killed, and the directory has noticed."""
        await self.kill(running)
        await self.directory.leave(running.member())
        del self.replicas[running.name]
        await self.look()

    async def ask(self, prompt: Prompt | str) -> list[Generated]:
        if isinstance(prompt, str):
            prompt = ask(prompt)
        return [part async for part in self.models.generate(prompt)]

    def where(self, conversation: str) -> str:
        """The replica that was asked last in a conversation; "" if none was."""
        at = [
            running.name
            for running in self.replicas.values()
            if any(prompt.origin.conversation == conversation for prompt in running.asked)
        ]
        assert len(at) <= 1, at
        return at[0] if at else ""

    def tally(self, id: str) -> Tally:
        return self.models.counts.of(id)

    async def aclose(self) -> None:
        await self.models.close()
        await self.links.aclose()
        for running in self.replicas.values():
            await running.listener.aclose()
            await running.engine.close()


def ask(text: str = "Hello", conversation: str = "c", tenant: str = "t", **more: Any) -> Prompt:
    return Prompt(
        messages=(ChatMessage(role="user", text=text),),
        origin=Origin(tenant=tenant, conversation=conversation),
        **more,
    )


def text_of(parts: Sequence[Generated]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Piece))


def made_by(parts: Sequence[Generated]) -> str:
    end = parts[-1]
    assert isinstance(end, Finished)
    return end.model
