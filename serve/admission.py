"""New work at a gateway: refused here while this gateway itself can't keep up, and as long as a host refuses
what is like it; whatever door it came through."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Generator
from random import Random
from typing import Any, TypeVar

from actors.fleet import NO_CALL, Fleet
from actors.link import Links
from actors.roster import Roster
from flotilla.core.calls import Call
from flotilla.core.clock import Clock
from flotilla.core.effects import Message
from flotilla.core.errors import Overloaded
from flotilla.core.ids import ActorId
from flotilla.core.policy.shedding import Shedding
from flotilla.core.policy.throttling import Throttle

LOOK_EVERY_S = 0.025
LOOKS_PER_TICK = 4
# The part of what a turn may wait that one pass of the loop may take: a turn needs several.
LOOP_OF_TARGET = 0.2
ENGINE_OF_TARGET = 4.0  # as at hosts (actors.pressure)
# Of requests whose host has just refused others.
THERE = "host"

A = TypeVar("A")


class Waiting:
    """New work that was let in, until it is `over`, which may be said more than once."""

    __slots__ = ("_shedding", "_tenant")

    def __init__(self, shedding: Shedding, tenant: str) -> None:
        self._shedding: Shedding | None = shedding
        self._tenant = tenant
        shedding.enter(tenant)

    def over(self) -> None:
        if self._shedding is not None:
            self._shedding.through(self._tenant)
            self._shedding = None


class Gate:
    """`target_s`: how long a turn may wait before new ones are refused; 0 refuses nothing here."""

    def __init__(self, clock: Clock, target_s: float = 0.0, *, chance: Random | None = None) -> None:
        self._clock = clock
        self._chance = chance or Random()
        self._throttle = Throttle()
        self._there = 0
        targets = {"loop": target_s * LOOP_OF_TARGET, "engine": target_s * ENGINE_OF_TARGET}
        self.shedding = Shedding(targets if target_s else {})

    def __repr__(self) -> str:
        return f"<Gate {self.shedding!r}>"

    @property
    def counts(self) -> Counter[str]:
        """Of what was refused here, by reason."""
        return self.shedding.counts + Counter({THERE: self._there} if self._there else {})

    @property
    def loop_s(self) -> float:
        """How late the gateway's own loop is, at least."""
        return self.shedding.standing_s.get("loop", 0.0)

    def wait(self, tenant: str) -> Waiting:
        """For new work that goes to no host but to a model. Raises `Overloaded`."""
        self.shedding.check(tenant)
        return Waiting(self.shedding, tenant)

    def check(self, tenant: str, host: str) -> None:
        """Before a host is asked for new work. Raises `Overloaded` if it is not to be asked."""
        self.shedding.check(tenant)
        key, now = _key(tenant, host), self._clock.monotonic()
        if self._chance.random() < self._throttle.share(key, now):
            self._throttle.asked(key, now)
            self._there += 1
            raise self.shedding.refusal(THERE)

    @contextlib.contextmanager
    def turn(self, tenant: str, host: str) -> Generator[None]:
        """Around the asking of a host for new work that was let in."""
        key = _key(tenant, host)
        self._throttle.asked(key, self._clock.monotonic())
        self.shedding.enter(tenant)
        refused = False
        try:
            yield
        except Overloaded:
            refused = True
            raise
        finally:
            self.shedding.through(tenant)
            if not refused:
                self._throttle.accepted(key, self._clock.monotonic())

    async def run(self) -> None:
        """For as long as the gateway lives: sees how late its loop is, and draws the conclusions."""
        while True:
            began = self._clock.monotonic()
            for _ in range(LOOKS_PER_TICK):
                await self._look()
            self.shedding.tick(self._clock.monotonic() - began)

    async def _look(self) -> None:
        due = self._clock.monotonic() + LOOK_EVERY_S
        await self._clock.sleep(LOOK_EVERY_S)
        await asyncio.sleep(0)
        self.shedding.waited("loop", max(0.0, self._clock.monotonic() - due))


def _key(tenant: str, host: str) -> str:
    return f"{host}\0{tenant}"


class GatedFleet(Fleet):
    """A fleet behind a gate: what begins new work passes it, all else goes straight on."""

    def __init__(self, links: Links, roster: Roster, clock: Clock, log: Any, gate: Gate) -> None:
        super().__init__(links, roster, clock, log)
        self.gate = gate

    async def ask(
        self, actor: ActorId, message: Message[A], *, timeout_s: float | None = None, call: Call = NO_CALL
    ) -> A:
        if not message.sheddable:
            return await super().ask(actor, message, timeout_s=timeout_s, call=call)
        self.check(actor)
        return await self.ask_checked(actor, message, timeout_s=timeout_s, call=call)

    def check(self, actor: ActorId) -> None:
        """Before anything is done for new work of this actor. Raises `Overloaded`."""
        self.gate.check(actor.tenant, self.home(actor) or "")

    async def ask_checked(
        self, actor: ActorId, message: Message[A], *, timeout_s: float | None = None, call: Call = NO_CALL
    ) -> A:
        """`ask`, for new work that was checked before."""
        with self.gate.turn(actor.tenant, self.home(actor) or ""):
            return await super().ask(actor, message, timeout_s=timeout_s, call=call)
