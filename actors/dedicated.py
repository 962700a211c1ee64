"""Actors that have a process to themselves: how one is found, started and ended.

A kind that is `dedicated` names what each of its actors gets (`Resources`). The process is a host that
holds that one actor, so everything else is as with the others. Any caller that finds no such process
asks the host that would own the actor if it were pooled; that host has it started.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from actors import frames
from actors.link import Links
from actors.roster import Roster
from actors.service import Ended, Housekeeping
from flotilla.core.actor import Kind, Resources
from flotilla.core.clock import Clock
from flotilla.core.errors import Refused, Unavailable
from flotilla.core.ids import ActorId
from flotilla.core.members import Member

# A process takes seconds to come up: until then it is asked for again no more often than this.
ASK_AGAIN_AFTER_S = 1.0
SPAWN_AGAIN_AFTER_S = 5.0
SPAWNED_KEPT = 10_000
ASK_TIMEOUT_S = 5.0
# A process whose actor sleeps stays this long: its first caller may still be on the way.
LINGER_S = 10.0
LOOK_EVERY_S = 1.0


class Spawner(Protocol):
    async def spawn(self, actor: ActorId, resources: Resources) -> None:
        """Starts the actor's process somewhere in the cluster; one that is there already is left alone.

        Raises `Unavailable` if the scheduler doesn't answer."""
        ...


class Alone(msgspec.Struct, frozen=True):
    """The settings of a dedicated process: those of the fleet, and who lives in it."""

    settings: Any
    actor: ActorId


def process_name(actor: ActorId) -> str:
    """The name of an actor's process: no two actors share one (`~` stands in no name)."""
    return str(actor).replace("/", "~")


class Finder:
    """The caller's end."""

    def __init__(self, roster: Roster, links: Links, clock: Clock) -> None:
        self._roster = roster
        self._links = links
        self._asked = _Recent(clock, ASK_AGAIN_AFTER_S)

    async def resolve(self, actor: ActorId) -> Member:
        """The process of a dedicated actor.

        Raises `Unavailable`, and has the process started, while there is none."""
        if found := self._roster.owner(actor):
            return found
        if not self._asked.lately(actor):
            await self._ask_for(actor)
            self._asked.add(actor)
        raise Unavailable(
            f"The process of {actor} is being started.", next="Try again.", retry_after_s=ASK_AGAIN_AFTER_S
        )

    async def _ask_for(self, actor: ActorId) -> None:
        host = self._roster.pooled_owner(actor)
        if host is None:
            raise Unavailable("No host is alive.", next="Hosts restart by themselves.", retry_after_s=1.0)
        try:
            link = await self._links.to(host.address)
        except Unavailable:
            self._roster.suspect(host)
            raise
        await link.ask("dedicate", frames.encode(actor), timeout_s=ASK_TIMEOUT_S)


class Spawning:
    """The host's end: answers "dedicate". `kind_of` raises `UnknownKind`."""

    def __init__(self, kind_of: Callable[[str], Kind], spawner: Spawner, clock: Clock) -> None:
        self._kind_of = kind_of
        self._spawner = spawner
        self._spawned = _Recent(clock, SPAWN_AGAIN_AFTER_S)

    async def dedicate(self, actor: ActorId) -> None:
        """Has the actor's process started. Raises `Refused` for a kind that isn't dedicated."""
        resources = self._kind_of(actor.kind).dedicated
        if resources is None:
            raise Refused(f"Actors of the kind {actor.kind!r} have no process of their own.", field="kind")
        if self._spawned.lately(actor):
            return
        # Noted before the wait, so that those who ask in the meantime don't start it too.
        self._spawned.add(actor)
        try:
            await self._spawner.spawn(actor, resources)
        except Unavailable:
            self._spawned.remove(actor)
            raise


def ends_when_asleep(is_awake: Callable[[], bool], clock: Clock) -> Housekeeping:
    """Housekeeping of a dedicated process: ends it for good when its actor has slept for `LINGER_S`."""

    async def watch(_: Member) -> None:
        awake_at = clock.monotonic()
        while clock.monotonic() - awake_at < LINGER_S:
            await clock.sleep(LOOK_EVERY_S)
            if is_awake():
                awake_at = clock.monotonic()
        raise Ended("its actor sleeps")

    return watch


class _Recent:
    """What was done in the last `span_s` seconds, at most `SPAWNED_KEPT` of it."""

    def __init__(self, clock: Clock, span_s: float) -> None:
        self._clock = clock
        self._span_s = span_s
        self._until: dict[ActorId, float] = {}

    def lately(self, actor: ActorId) -> bool:
        return self._until.get(actor, 0.0) > self._clock.monotonic()

    def add(self, actor: ActorId) -> None:
        self._until.pop(actor, None)
        self._until[actor] = self._clock.monotonic() + self._span_s
        while len(self._until) > SPAWNED_KEPT:
            del self._until[next(iter(self._until))]

    def remove(self, actor: ActorId) -> None:
        self._until.pop(actor, None)
