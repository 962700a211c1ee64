"""Those who are about the models: an operator who swaps versions, and somebody who has texts written."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import msgspec

from flotilla.core import swap_facts
from flotilla.core.effects import Message
from flotilla.core.errors import FlotillaError
from flotilla.core.flow import Do
from flotilla.core.ids import ActorId
from flotilla.core.swap_facts import (
    AddVersion,
    BeginSwap,
    Pause,
    Promote,
    Resume,
    RollBack,
    Serve,
)
from flotilla.core.swap_views import ModelView
from flotilla.core.versions import Version
from simulation.clients import Client, Outside
from simulation.model_history import State
from simulation.observations import Told
from simulation.versions import ACTOR, BAD, BASES, GOOD, PLAIN_ACTOR, order

TASK_S = 20.0


class Operator(Client):
    """`look` is what the operator reads of the model's events, as they are recorded; `fallback` is who is to answer
    when they can't, if somebody is."""

    def __init__(
        self, name: str, outside: Outside, look: Callable[[], State], fallback: Version | None
    ) -> None:
        super().__init__(name, outside)
        self._look = look
        self._fallback = fallback
        self._adapters: list[str] = []

    async def run(self, versions: Sequence[Version], swaps: int) -> None:
        self._adapters = [version.id for version in versions if version.adapter]
        for version in versions:
            await self.say(AddVersion(version=version))
        least = self.chance.choice((1, 1, 2))
        most = least + self.chance.choice((0, 1))
        fallbacks = await self._fall_back()
        await self.say(Serve(version=versions[0].id, least=least, most=most, fallbacks=fallbacks))
        for number in range(swaps):
            await self.pause(2.0)
            await self._swap(f"{self.name}.{number}")

    async def _fall_back(self) -> tuple[str, ...]:
        """Has it answer, and returns its id."""
        if self._fallback is None:
            return ()
        await self.ask(PLAIN_ACTOR, AddVersion(version=self._fallback))
        await self.ask(PLAIN_ACTOR, Serve(version=self._fallback.id, least=0, most=1))
        return (self._fallback.id,)

    async def say(self, message: Message[ModelView]) -> None:
        """Until it is answered; a refusal is an answer."""
        try:
            view = await self.ask(ACTOR, message)
        except FlotillaError:
            return
        stable = view.plan.route.stable if view.plan.route else ""
        self.see(Told, seq=view.seq, stable=stable)

    async def _swap(self, swap: str) -> None:
        others = [id for id in (*GOOD, *GOOD, BAD, *self._adapters[:1]) if id != self._look().stable]
        to, wanted = self.chance.choice(others), order(self.chance)
        if to in BASES:  # nothing takes the place of anything
            wanted = msgspec.structs.replace(wanted, in_place=False)
        begin = BeginSwap(swap=swap, to=to, order=wanted)
        await self.say(begin)
        if self.chance.random() < 0.2:
            await self.say(begin)
        while self._look().swap:
            await self.pause(self.chance.choice((0.5, 2.0, 6.0)))
            await self._steer()

    async def _steer(self) -> None:
        """Lets it go on, mostly; what is held is not left so."""
        state, chance = self._look(), self.chance.random()
        if not state.swap:
            return
        if state.paused or (state.waits and state.stage == "canary"):
            await self.say(self.chance.choice((Resume(), Resume(), Promote(), RollBack())))
        elif chance < 0.15:
            await self.say(RollBack())
        elif chance < 0.25:
            await self.say(Pause())
        elif chance < 0.35:
            await self.say(Promote())
        elif chance < 0.45:
            await self.say(swap_facts.Show())


class Commissioner(Client):
    """Has texts written, one after the other. A task ends with the time of whoever asked for it, so one may
    fail while much is down: then another is tried."""

    async def run(self, writer: ActorId, tasks: int) -> None:
        for number in range(tasks):
            do = Do(task=f"{self.name}.{number}", question="What does the Silver card cost?")
            with contextlib.suppress(FlotillaError, TimeoutError):
                async with asyncio.timeout(TASK_S):
                    await self.ask(writer, do)
            await self.pause(2.0)
