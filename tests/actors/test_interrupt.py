"""A stop on its way from whoever sends it to the model, over real links."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from actors.doors import RemoteModel, answer_model
from actors.link import Links, Listener
from actors.roster import Roster
from flotilla.core import signals
from flotilla.core.generation import Generated, Prompt
from flotilla.core.members import Member
from models.scripted import ScriptedModel
from tests.actors.cluster import LOG, SLOW, TOKEN, Cluster, join

REACHES_WITHIN_S = 0.05
TRIES = 20


class Watched:
    """The scripted model; says when a generation was cut off in its middle."""

    name = "watched"

    def __init__(self) -> None:
        self._model = ScriptedModel(SLOW)
        self.cut_off: list[float] = []

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        try:
            async with aclosing(self._model.generate(prompt)) as pieces:
                async for piece in pieces:
                    yield piece
        except (GeneratorExit, asyncio.CancelledError):
            self.cut_off.append(time.monotonic())
            raise

    async def ping(self) -> None:
        return None

    async def close(self) -> None:
        return None


@pytest.fixture
async def far() -> AsyncIterator[tuple[Cluster, Watched]]:
    """A cluster whose model is at the other end of a link."""
    model, made = Watched(), Cluster()
    listener, links = Listener(answer_model(model), TOKEN), Links(TOKEN)
    member = Member(
        role="model", name="m", life="l-m", address=await listener.start(), info={"name": "watched"}
    )
    await made.directory.beat(member)
    roster = Roster(made.directory, made.clock, LOG, "model")
    await roster.refresh()
    made.model = RemoteModel(links, roster)
    yield made, model
    await made.aclose()
    await links.aclose()
    await listener.aclose()


async def test_an_interrupt_reaches_the_model_within_50_ms(far: tuple[Cluster, Watched]) -> None:
    cluster, model = far
    await cluster.add("a")
    taken: list[float] = []
    for n in range(TRIES):
        actor = await cluster.open(f"s_{n}")
        reading = asyncio.create_task(cluster.read(actor))
        await cluster.post(actor, "c-1")
        await cluster.until(lambda actor=actor: any(a == actor for a, _ in cluster.hot_log.store._texts))
        stopped_at = time.monotonic()
        await cluster.fleet.ask(actor, signals.Interrupt())
        await cluster.until(lambda n=n: len(model.cut_off) == n + 1)
        taken.append(model.cut_off[-1] - stopped_at)
        events = await reading
        assert events[-1]["type"] == "reply.interrupted" and join(events) == events[-1]["data"]["text"]
    assert sorted(taken)[TRIES // 2] < REACHES_WITHIN_S, taken
