"""How long work waits in this process, measured where it waits; and whether there is room for more.

Only a message that says so of itself (`Message.sheddable`), that somebody outside waits for, and that no
actor has sent, is ever refused here: whatever was begun goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from actors.tickets import Ticket
from flotilla.core.calls import Call
from flotilla.core.clock import Clock
from flotilla.core.effects import Signal
from flotilla.core.ids import ActorId
from flotilla.core.policy.shedding import Shedding, Terms

LOOK_EVERY_S = 0.025
LOOKS_PER_TICK = 4
# What may stand at each queue, as a multiple of what a turn may wait. A turn takes many passes of the loop, so
# one of them may take little; what an engine has queued is work that it is good at.
OF_TARGET: Mapping[str, float] = {
    "loop": 0.2,
    "mailbox": 0.4,
    "journal": 0.4,
    "retrieval": 1.0,
    "model": 1.0,  # from the wish for a reply to its first token, beyond what the engine says that it took
    "engine": 4.0,  # all of that, of replies whose replica says that requests wait there
    "turn": 1.0,  # all of it together, from the mailbox to the first words, beyond what an engine takes for them
}
# How much of it a reply's first token counts for in what engines take.
SMOOTHING = 0.1


class Pressure:
    """`target_s`: how long a turn may wait at a host before new ones are refused; 0 refuses nothing."""

    def __init__(self, clock: Clock, target_s: float = 0.0, *, terms: Terms | None = None) -> None:
        targets = {name: target_s * share for name, share in OF_TARGET.items()} if target_s else {}
        self._clock = clock
        self._appends: dict[int, float] = {}  # since when each is under way: the first is the oldest
        self._number = 0
        self._waiting: dict[ActorId, tuple[int, float]] = {}  # how many, and since when
        self._engine_s = 0.0  # about what engines take for a first token
        self.shedding = Shedding(targets, terms=terms)
        self.waited = self.shedding.waited

    def __repr__(self) -> str:
        return f"<Pressure {self.shedding!r}>"

    # -- what comes in

    def check(self, id: ActorId, message: Signal, ticket: Ticket | None, call: Call) -> bool:
        """Whether it is new work, which has to be said when it is let in. Raises `Overloaded`."""
        if not message.sheddable or ticket is None or call.chain:
            return False
        self.shedding.check(id.tenant)
        return True

    def enter(self, id: ActorId) -> None:
        """New work is in the actor's mailbox."""
        count, since = self._waiting.get(id) or (0, self._clock.monotonic())
        self._waiting[id] = count + 1, since
        self.shedding.enter(id.tenant)

    def through(self, id: ActorId, *, shown: bool = False) -> None:
        """The actor has something to show for all its new work (`shown`), or nothing left to do. Cheap if there
        is none."""
        if not self._waiting or (waits := self._waiting.pop(id, None)) is None:
            return
        count, since = waits
        if shown:
            self.waited("turn", max(0.0, self._clock.monotonic() - since - self._engine_s))
        for _ in range(count):
            self.shedding.through(id.tenant)

    def engine_took(self, seconds: float) -> None:
        """For the first token of a reply, by its own word."""
        self._engine_s += SMOOTHING * (seconds - self._engine_s)

    # -- what is measured

    def append_began(self) -> int:
        self._number += 1
        self._appends[self._number] = self._clock.monotonic()
        return self._number

    def append_ended(self, number: int) -> None:
        self.waited("journal", self._clock.monotonic() - self._appends.pop(number))

    async def run(self) -> None:
        """For as long as the process lives: sees how late its loop is, and draws the conclusions."""
        while True:
            began = self._clock.monotonic()
            for _ in range(LOOKS_PER_TICK):
                await self._look()
            now = self._clock.monotonic()
            oldest = {"journal": now - next(iter(self._appends.values()))} if self._appends else {}
            self.shedding.tick(now - began, oldest)

    async def _look(self) -> None:
        """One pass through the loop, and how late it came."""
        due = self._clock.monotonic() + LOOK_EVERY_S
        await self._clock.sleep(LOOK_EVERY_S)
        await asyncio.sleep(0)
        self.waited("loop", max(0.0, self._clock.monotonic() - due))

    def load(self) -> dict[str, float]:
        """For the beats."""
        shed = self.shedding
        return {"waiting_turns": float(shed.waiting), "refused": round(shed.refused, 3)}
