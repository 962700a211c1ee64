"""A host: one event loop, up to a hundred thousand actors.

It answers links. An actor that is asked, told or followed is activated from its journal; one that
nobody needs is passivated; one that was left unfinished by a dead host is woken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

import msgspec

from actors import frames
from actors.activation import Activation
from actors.alarm import Alarm
from actors.dedicated import Spawning
from actors.doubt import Doubt
from actors.follower import Follower
from actors.lease import Lease
from actors.mailbox import Envelope
from actors.pressure import Pressure
from actors.runqueue import RunQueue
from actors.runtime import Runtime
from actors.serving.standing import Stands
from actors.tickets import Promise, Stream, Ticket
from flotilla.core.calls import Call
from flotilla.core.effects import Due, Message
from flotilla.core.errors import Cycle, FlotillaError, Moved, Overloaded, TooLarge
from flotilla.core.ids import ActorId


class Host:
    """`name` is how the directory knows it; `only` restricts a dedicated one to its actor. `lease` says
    whether others may have taken it for dead; `pressure`, whether there is room for new work."""

    def __init__(
        self,
        runtime: Runtime,
        name: str = "host",
        only: ActorId | None = None,
        lease: Lease | None = None,
        pressure: Pressure | None = None,
    ) -> None:
        self.runtime = runtime
        self.name = name
        self.queue = RunQueue()
        self.pressure = pressure or Pressure(runtime.clock)
        self.doubt = Doubt(runtime.fleet.roster, runtime.clock, lease)
        self.draining = False
        self.spawning: Spawning | None = None
        self.only = only
        self.active: dict[ActorId, Activation] = {}
        self.alarm: Alarm | None = None  # for those who look at the host
        self.models: Stands | None = None  # the same
        self._spawned: set[asyncio.Task[None]] = set()
        runtime.fleet.settle_here(self)

    def __repr__(self) -> str:
        return f"<Host {self.name}: {len(self.active)} activations, {len(self.queue)} have something to do>"

    # -- reaching actors

    async def ask(self, id: ActorId, message: Message[Any], call: Call) -> Any:
        promise = Promise()
        self.deliver(id, message, promise, call)
        return await promise.future

    def stream(self, id: ActorId, message: Message[Any], call: Call, hops: int = 1) -> Stream:
        stream = Stream()
        self.deliver(id, message, stream, call, hops=hops)
        return stream

    def message(self, id: ActorId, body: bytes) -> Any:
        """What was sent to an actor. Raises `TooLarge`, `Refused` for what its kind can't read."""
        codec = self.runtime.kinds.of(id.kind).codec
        most = codec.kind.limits.message_bytes_max
        if len(body) > most:
            raise TooLarge(f"{len(body)} bytes; a {codec.kind.name} takes {most}.", next="Send less at once.")
        try:
            return codec.message(body)
        except msgspec.DecodeError as error:
            raise frames.unreadable(error) from None

    def deliver(self, id: ActorId, message: Any, ticket: Ticket | None, call: Call, *, hops: int = 1) -> None:
        """Into the actor's mailbox, which wakes it. Raises `Cycle`, `MailboxFull`, `Moved`, `Overloaded`, …"""
        if call.chain and str(id) in call.chain:
            raise Cycle(
                f"{id} already waits for this answer: {' → '.join(call.chain)}.",
                next="Answer first and tell later, or ask another actor.",
            )
        new = self.pressure.check(id, message, ticket, call)
        until = None if call.left_s is None else self.runtime.clock.monotonic() + call.left_s
        self.activate(id, hops=hops).deliver(Envelope(message, ticket, call, until))
        if new:
            self.pressure.enter(id)

    def due(self, id: ActorId, due: Due, ticket: Ticket, hops: int = 1) -> None:
        self.activate(id, hops=hops).deliver(Envelope(due, ticket), bounded=False)

    def follow(self, id: ActorId, follower: Follower, hops: int = 1) -> Activation:
        activation = self.activate(id, hops=hops)
        activation.follow(follower)
        return activation

    def activate(self, id: ActorId, *, hops: int = 1) -> Activation:
        """The actor's activation: at once, though it may still be folding its journal.

        Raises `Moved` if it lives elsewhere (unless another host has sent the caller here), `Overloaded`
        if the host is full."""
        if activation := self.active.get(id):
            return activation
        if hops == 0 or self.draining or self.only is not None:
            self._check_home(id)
        if len(self.active) >= self.runtime.limits.activations_max:
            raise Overloaded(f"{len(self.active)} actors are active here.", retry_after_s=5.0)
        resident = self.runtime.kinds.of(id.kind)
        activation = self.active[id] = Activation(id, resident, self)
        resident.counts["activations"] += 1
        activation.wake()
        return activation

    def _check_home(self, id: ActorId) -> None:
        if self.owns(id):
            return
        home = self.runtime.fleet.home(id) or ""
        raise Moved(f"{id} lives at {home}.", field=home, retry_after_s=0.05)

    def owns(self, id: ActorId) -> bool:
        """As far as this host knows; while it knows of no host at all, everything is its own."""
        if self.only is not None:
            return id == self.only
        home = self.runtime.fleet.home(id)
        return home == self.name or (home is None and not self.runtime.kinds.of(id.kind).kind.dedicated)

    async def start_dedicated(self, left: Iterable[ActorId]) -> None:
        """Has the processes started of those that have one to themselves, work to go on with, and nobody
        to do it; each by the host that would own it if it were pooled."""
        roster = self.runtime.fleet.roster
        for id in left:
            pooled = roster.pooled_owner(id) if roster.is_dedicated(id) and roster.owner(id) is None else None
            if self.spawning is not None and pooled is not None and pooled.name == self.name:
                await self.spawning.dedicate(id)

    def forget(self, activation: Activation) -> None:
        if self.active.get(activation.id) is activation:
            del self.active[activation.id]
            self.pressure.through(activation.id)
            activation.resident.counts["passivations"] += 1

    def release(self, id: ActorId) -> bool:
        """Lets go of an actor after the signal that it handles; whoever waits finds its new home."""
        if activation := self.active.get(id):
            activation.leave()
        return activation is not None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs beside everything; held so that it isn't collected."""
        task = asyncio.get_running_loop().create_task(work)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)

    async def abandon(self) -> None:
        """Drops everything without a word, as a killed process does."""
        for activation in list(self.active.values()):
            activation.abandon()
        self.active.clear()
        await asyncio.sleep(0)


def refused(error: Exception) -> FlotillaError:
    return error if isinstance(error, FlotillaError) else FlotillaError(f"{type(error).__name__}.")
