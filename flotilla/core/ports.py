"""The doors of the core: what it needs from the world, and nothing about how.

Every implementation behind a door passes the same contract tests (tests/contracts).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from datetime import date, datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flotilla.core.charges import By, Charge, Spent
from flotilla.core.generation import EngineLoad, Generated, Origin, Prompt, Shown
from flotilla.core.ids import ActorId
from flotilla.core.journal import Append, Due, Letter, Snapshot, Stored
from flotilla.core.knowledge import Document, Hit, Ingested, SearchMode
from flotilla.core.members import Member
from flotilla.core.reminders import Reminder
from flotilla.core.tallies import Tallies
from flotilla.core.versions import Plan, Plans, Version

Vectors = npt.NDArray[np.float32]


class Model(Protocol):
    """Turns a prompt into text, a piece per engine step."""

    @property
    def name(self) -> str:
        """Name and version, as shown in `reply.completed.model`."""
        ...

    def generate(self, prompt: Prompt) -> AsyncGenerator[Generated]:
        """Pieces as they are made, then exactly one `Finished`.

        Closing the iterator cancels the generation in the engine. Raises `Refused` for a prompt
        that can't fit, `Unavailable` if the engine is down.
        """
        ...

    async def ping(self) -> None:
        """Returns once the engine can generate; raises `Unavailable` with the reason otherwise."""
        ...

    async def close(self) -> None: ...


class Engine(Model, Protocol):
    """A model that a replica runs: what its replica must know of it and can do with it.

    An engine that can't do one of the last three raises `Unsupported`, and stays as it was.
    """

    def load(self) -> EngineLoad: ...

    async def load_adapter(self, id: str, folder: str) -> None:
        """Applies to prompts with `adapter == id` from now on; loading what is loaded changes nothing.

        Raises `Misconfigured` (field `adapter`) for one that doesn't fit the base, and stays as it was."""
        ...

    async def unload_adapter(self, id: str) -> None:
        """Nothing if there is none of that id."""
        ...

    async def reload(self, folder: str, name: str) -> None:
        """Swaps the weights in place, for others of the same architecture; `name` is the model's from now
        on. Nobody may be generating: the caller holds its requests. Forgets every cached prefix.

        Raises `Misconfigured` (field `source`), and goes on with the weights it has."""
        ...


class Embedder(Protocol):
    """Turns text into vectors of unit length."""

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape `(len(texts), dimensions)`, float32, each row of length 1."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


class Reranker(Protocol):
    """Says how well texts go with a query; dear, so that only the best of a search are put to it."""

    @property
    def name(self) -> str: ...

    async def rank(self, query: str, texts: Sequence[str]) -> list[float]:
        """A score for each of `texts`: the higher the better, on a scale of the engine's own."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


class Knowledge(Protocol):
    """Collections of documents that can be searched. Every call is bound to a tenant."""

    async def upsert(self, tenant: str, collection: str, documents: Sequence[Document]) -> Ingested:
        """Adds or replaces by document id; a document whose content is unchanged costs a hash."""
        ...

    async def remove(self, tenant: str, collection: str, document: str) -> bool:
        """False if it was not there. When this returns, no search finds its text."""
        ...

    async def documents(self, tenant: str, collection: str) -> dict[str, str]:
        """Content hash by document id. Raises `NotFound` for an unknown collection."""
        ...

    async def search(
        self, tenant: str, collection: str, query: str, *, limit: int, mode: SearchMode = "hybrid"
    ) -> tuple[Hit, ...]:
        """At most `limit` hits, best first. Raises `NotFound` for an unknown collection."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


class Journal(Protocol):
    """The record: entries keyed by actor and `seq`, appended with the `seq` they expect.

    The expected `seq` is the fence: of two hosts that both believe they own an actor, only one can write.
    Bodies of entries and snapshots are sealed at rest under a key of the append's `person`.
    """

    async def append(self, append: Append) -> None:
        """Records the entries as `expected + 1 …` and changes the reminders, all or none; durable when it
        returns.

        Raises `Conflict` if the actor's last `seq` is not `expected`, or if `fired` is not pending any
        more; `Unavailable` if the outcome is unknown: the caller must read again before it goes on.
        """
        ...

    async def load(self, actor: ActorId) -> tuple[Snapshot | None, list[Stored]]:
        """The latest snapshot, if there is one, and every entry after it: one round trip.

        Raises `Erased` if the key of its person was dropped."""
        ...

    async def read(self, actor: ActorId, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        """Entries with `seq > after`, in order. Raises `Erased` as above."""
        ...

    async def keep(self, actor: ActorId, snapshot: Snapshot, *, person: str = "") -> None:
        """Keeps a snapshot in place of an older one; an older one than what is kept is ignored."""
        ...

    async def unfinished(self) -> list[ActorId]:
        """Actors of all tenants with work to go on with."""
        ...

    async def actors(
        self, tenant: str, kind: str, *, before: str | None = None, limit: int = 50
    ) -> list[tuple[ActorId, list[Stored]]]:
        """Newest first, by name, each with its first and its last entry; those that were erased are left
        out."""
        ...

    async def erase(self, tenant: str, person: str) -> bool:
        """Drops the person's key: what was sealed with it can't be read by anybody any more. False if
        there was none."""
        ...

    async def due(self, before: datetime, buckets: Sequence[int], *, limit: int) -> list[Due]:
        """Reminders with a due time up to `before`, earliest first, of actors in these buckets
        (`bucket_of`)."""
        ...

    async def reminders(self, actor: ActorId) -> list[Reminder]:
        """Those that are set, by name."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


class Letters(Protocol):
    """Messages that actors could not take: kept until somebody has looked."""

    async def put(self, letter: Letter) -> None:
        """Kept by id: putting it again changes nothing."""
        ...

    async def list(self, tenant: str, *, actor: ActorId | None = None, limit: int = 100) -> list[Letter]:
        """Oldest first."""
        ...

    async def read(self, tenant: str, id: str) -> Letter | None: ...

    async def remove(self, tenant: str, id: str) -> Letter | None:
        """The letter that was removed; None if there is none of that id."""
        ...


class Pins(Protocol):
    """The exceptions of placement: actors that live where hashing would not put them."""

    async def pin(self, actor: ActorId, host: str) -> None:
        """Until it is unpinned `actor` lives at the host of that name, while that host is alive."""
        ...

    async def unpin(self, actor: ActorId) -> None: ...

    async def pins(self) -> dict[ActorId, str]:
        """All of them: actor to the name of its host."""
        ...


class UsageLedger(Protocol):
    """What replies have cost. Every look is bound to a tenant."""

    async def charge(self, charges: Sequence[Charge]) -> None:
        """Of all tenants, all or none. One whose tenant and key are known changes nothing."""
        ...

    async def usage(self, tenant: str, since: date, until: date, by: By) -> list[Spent]:
        """Sums over the days from `since` until before `until` (UTC), by name; at most
        `LIMITS.page_max` of them."""
        ...


class PlanBoard(Protocol):
    """Where the plans of the models hang, for everybody who routes and for the controller."""

    async def publish(self, plan: Plan) -> None:
        """One with a lower `revision` than what hangs there changes nothing."""
        ...

    async def plans(self) -> Plans: ...

    async def remove(self, model: str) -> None: ...


class TallyBoard(Protocol):
    """Where each process that asks models hangs up what it has counted; a page is gone when its process
    has been silent for a few seconds."""

    async def post(self, process: str, tallies: Tallies) -> None:
        """In place of what this process had hung there. `process` is another one after a restart."""
        ...

    async def pages(self) -> dict[str, Tallies]:
        """By process: those that are alive."""
        ...


class FailureBoard(Protocol):
    """Why replicas of a version could not be started, for whoever waits for them; ten minutes long."""

    async def note(self, version: str, reason: str) -> None:
        """In place of what was noted of this version."""
        ...

    async def failures(self) -> dict[str, str]:
        """The reasons, in words, by the id of the version."""
        ...

    async def clear(self, version: str) -> None:
        """Nothing if there is none."""
        ...


class Holder(Protocol):
    """Somebody with work that goes on for longer than one reply."""

    @property
    def lost(self) -> bool:
        """Whether another one, or nobody, does its work now."""
        ...


class ModelDoor(Model, Protocol):
    """All the models of a fleet, as one who asks sees them: the way to the right version of the right one."""

    def choose(self, origin: Origin, wanted: str = "") -> str:
        """The id of the version that is to answer: of the model or version `wanted`, of the default model if
        it is "". The same conversation gets the same one until the plan changes.

        Raises `NotFound` for one that there isn't, or that is not for this tenant; `Unavailable` if nothing
        is known of any model yet."""
        ...

    def hold(self, holder: Holder, versions: Collection[str], *, most_s: float | None = None) -> None:
        """Keeps these versions, and no others, from being taken away while `holder` goes on with them: until
        it holds others, is lost, or has not said so for `most_s` seconds (`actors/serving/holding.py`)."""
        ...

    def score(self, version: str, quality: float) -> None:
        """What is thought of a reply of that version, 0 to 1, for whoever watches it."""
        ...

    def versions(self, tenant: str) -> list[Version]:
        """What a tenant may ask for."""
        ...


class HotLog(Protocol):
    """What a customer has seen of a reply that is not yet in the record."""

    async def append(self, actor: ActorId, turn: str, said: int, text: str) -> None:
        """Adds `text` behind the `said` bytes (UTF-8) that are there.

        Raises `Conflict` if there are more or fewer: another host goes on with this reply.
        """
        ...

    async def read(self, actor: ActorId, turn: str) -> Shown: ...

    async def seal(self, actor: ActorId, turn: str, *, forget: bool = False) -> str:
        """Closes the log of this turn: whoever appends to it from now on gets a `Conflict`, so that a host
        that was declared dead shows no word of a turn that has ended. Returns all that has been shown;
        `forget` drops that text, once the record has it."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


class Directory(Protocol):
    """Who is alive and where: a member that stops beating is gone after a few seconds."""

    async def beat(self, member: Member) -> None: ...

    async def leave(self, member: Member) -> None: ...

    async def members(self, role: str) -> list[Member]: ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


class Once(Protocol):
    """Remembers what a client's idempotency key was first used for."""

    async def claim(self, tenant: str, key: str, value: str) -> str:
        """Remembers `value` under `key` for 24 h unless the key is known; returns what is remembered."""
        ...
