"""How a kind's own effects are performed: the half of a kind that touches the world."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from actors.follower import Follower
from flotilla.core.calls import Call
from flotilla.core.effects import Signal, Step, Woken, Work
from flotilla.core.errors import FlotillaError, Problem
from flotilla.core.ids import ActorId
from flotilla.core.journal import Stored
from flotilla.core.ledger import Recorded
from flotilla.views import events


class Activation(Protocol):
    """What a performer sees of the activation that it works for."""

    id: ActorId
    actor: Any
    notes: Any
    lost: bool

    def publish(self, frame: bytes) -> None:
        """To everybody who follows the actor."""
        ...

    def begins(self) -> None:
        """There is something to see of what the actor was asked for last: it waits no more."""
        ...

    def waited(self, queue: str, seconds: float) -> None:
        """So long something of its work has stood in a queue of the fleet (`actors.pressure`)."""
        ...

    def engine_took(self, seconds: float) -> None:
        """For the first token of a reply, by the engine's own word."""
        ...


class Performer:
    """One per kind and host; a kind without steps and works needs none of its own."""

    def prepare(self, at: Activation, entries: Sequence[Stored]) -> None:
        """Called once the journal is folded; `entries` are those behind the snapshot."""

    async def woken(self, at: Activation) -> Signal | None:
        """What an activation hears first, once its journal is folded."""
        return Woken() if at.actor.unfinished else None

    def informed(self, at: Activation, signal: Signal) -> Signal:
        """The signal as the pure side is to hear it, with what only the outside knows."""
        return signal

    async def step(self, at: Activation, effect: Step) -> None:
        """Performs `effect` in its place; what is listed behind it waits."""
        raise NotImplementedError(f"No step {type(effect).__name__}.")

    def work(self, at: Activation, effect: Work, call: Call) -> AsyncGenerator[Signal]:
        """Runs beside the loop; each signal it yields goes to the actor. Cancelled by `Stop(effect.key)`.
        What it raises is logged and ends it: report failures as signals. `call` is that of the signal
        which the effect answered, with what is left of its time."""
        raise NotImplementedError(f"No work {type(effect).__name__}.")

    def stamp(self, at: Activation, fact: Any, signal: Signal) -> Any:
        """The fact as it is recorded: a place for what the pure side can't know, such as times."""
        return fact

    def recorded(self, at: Activation, recorded: Recorded) -> None:
        """Called for each fact once it is in the journal."""

    def broke(self, at: Activation, effect: Work, error: FlotillaError) -> Signal | None:
        """What the actor hears if a work of its own ends with a bug."""
        return None

    def poisoned(self, at: Activation, signal: Signal, problem: Problem) -> Signal | None:
        """What the actor hears in place of a signal that broke it again and again."""
        return None

    def so_far(self, at: Activation, follower: Follower) -> bytes | None:
        """What a newcomer must see of what is under way, beyond the facts."""
        return None

    def frame(self, recorded: Recorded) -> bytes | None:
        """What followers of the actor see of a fact; None for nothing."""
        return events.frame(recorded)
